"""What measured numbers depend on besides the code."""

import platform
from pathlib import Path

import torch


def machine(device: str) -> dict[str, str | int]:
    """Describes the device, and the versions of what runs on it."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor_name() -> str:
    """Returns the processor's model name where the system tells it, else its architecture."""
    description = Path("/proc/cpuinfo")
    if description.exists():
        for line in description.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
