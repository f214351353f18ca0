"""Peak memory of one piece of work: in a process of its own on the CPU, by PyTorch's own count on a GPU."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from longformer.errors import LongformerError


def in_own_process(module: str, *arguments: str, what: str) -> Any:
    """Return what `python -m module arguments` prints as JSON.

    Raises:
        LongformerError: the process failed; the message says at `what`.
    """
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [how_it_ended(result.returncode)])[-1]
        raise LongformerError(f"could not measure {what}: {reason}")
    return json.loads(result.stdout.splitlines()[-1])


def how_it_ended(exit_code: int) -> str:
    """Say what a process's exit code means."""
    if exit_code == -signal.SIGKILL:
        return "the system killed it, most likely for lack of memory"
    return f"it ended with exit code {exit_code}"


def memory_of(work: Callable[[], object], device: str) -> tuple[int, int]:
    """Do `work` once and return what that adds to the peak memory, and the whole peak, in bytes.

    On a CPU peaks are those of this process since it started: do nothing larger before.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        return peak - before, peak
    before = resident_memory()
    work()
    return peak_memory() - before, peak_memory()


def resident_memory() -> int:
    """Return the memory this process holds now, in bytes; where only the peak is known, that."""
    return peak_memory() if sys.platform == "darwin" else _status("VmRSS")


def peak_memory() -> int:
    """Return the largest resident memory this process has had, in bytes."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: on Linux that starts at what the parent held when it forked this process.
    return _status("VmHWM")


def _status(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{name}:")[1].split()[0]) * 1024
