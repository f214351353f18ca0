"""What measured numbers depend on besides the code."""

import platform
import shutil
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from longformer.benchmarks.device_times import replay_times
from longformer.costs.peak import measured_peak_flops

_OF_THE_CARD = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"


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


def device_facts(device: str) -> dict[str, Any]:
    """Describes the device, with what it reaches in a matrix product and a copy, its clocks and its power."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    found: dict[str, Any] = dict(machine(device))
    for package in ("triton", "transformers", "deepspeed"):
        found[package] = version(package) if find_spec(package) else "not installed"
    found["product TFLOP/s"] = measured_peak_flops(torch.device(device), dtype) / 1e12
    source = torch.zeros(2**20 if device == "cpu" else 2**32, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    found["copy TB/s"] = 2 * source.nbytes / min(replay_times(lambda: target.copy_(source), device, 5)) / 1e12
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={_OF_THE_CARD}", "--format=csv", "--id=0"]
        found["nvidia-smi"] = subprocess.run(command, capture_output=True, text=True).stdout.strip().replace("\n", "; ")
    return found
