"""Peak memory of one piece of work: in a process of its own on the CPU, by PyTorch's own count on a GPU."""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from longformer.errors import LongformerError

SECONDS_BETWEEN_LOOKS = 0.05


def in_own_process(module: str, *arguments: str, what: str, environment: Mapping[str, str] | None = None) -> Any:
    """Returns what `python -m module arguments` prints as JSON; its environment is this process's unless given.

    Raises:
        LongformerError: the process failed; the message says at `what`.
    """
    command = [sys.executable, "-m", module, *arguments]
    with TemporaryFile("w+", encoding="utf-8") as output, TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        output.seek(0)
        errors.seek(0)
        printed, complaint = output.read(), errors.read()
    if process.returncode != 0:
        reason = (complaint.strip().splitlines() or [how_it_ended(process.returncode, peak)])[-1]
        raise LongformerError(f"could not measure {what}: {reason}")
    return json.loads(printed.splitlines()[-1])


def how_it_ended(exit_code: int, peak: int) -> str:
    """Says what a process's exit code means, and what memory it was seen to have held, in bytes; 0 = not known."""
    if exit_code == -signal.SIGKILL:
        held = f" when it held {peak / 1e9:.1f} GB" if peak else ""
        return f"the system killed it{held}, most likely for lack of memory"
    return f"it ended with exit code {exit_code}"


def be_killed_first() -> None:
    """Lets this process be the one that a Linux system without memory kills, rather than a bystander."""
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def memory_of(work: Callable[[], object], device: str) -> tuple[int, int]:
    """Does `work` once and returns what that adds to the peak memory, and the whole peak, in bytes.

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
    """Returns the memory this process holds now, in bytes; where only the peak is known, that."""
    return peak_memory() if sys.platform == "darwin" else _status("VmRSS")


def peak_memory(process: int | None = None) -> int:
    """Returns the largest resident memory that this process, or on Linux another, has had, in bytes; 0 = not known."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if process is None else 0
    # Not ru_maxrss: on Linux that starts at what the parent held when it forked this process.
    return _status("VmHWM", process)


def _status(name: str, process: int | None = None) -> int:
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # A process that has just ended has a status, but no memory.
    _, found, rest = status.partition(f"{name}:")
    return int(rest.split()[0]) * 1024 if found else 0
