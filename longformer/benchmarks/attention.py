"""Time and memory of our attention beside its peers: times in one process by turns, memory in a process each.

`compare` is what `longformer bench attention` prints.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import torch

from longformer.benchmarks.attention_engines import Attend, Setting, engines
from longformer.errors import LongformerError


@dataclass(frozen=True)
class Measurement:
    """One engine in one setting.

    `seconds` is the fastest of several runs; `extra_bytes` what the process's peak grew by during one run, inputs
    not counted; `peak_bytes` the whole process's peak; `saved_bytes` what forward keeps for backward, query, key
    and value included; `useful_tflops` counts visible pairs only.
    """

    engine: str
    setting: Setting
    seconds: float
    useful_tflops: float
    extra_bytes: int
    peak_bytes: int
    saved_bytes: int


def compare(settings: Iterable[Setting], *, repeats: int, report: Callable[[str], None]) -> list[Measurement]:
    """Measure every engine in every setting; `report` is told what is being done.

    Raises:
        LongformerError: a process measuring memory failed.
    """
    measurements = []
    for setting in settings:
        report(f"timing {setting.positions:,} positions")
        contenders = {name: build(setting) for name, build in engines(setting).items()}
        fastest = time_by_turns(setting, contenders, repeats)
        for name, attend in contenders.items():
            report(f"memory of {name} at {setting.positions:,} positions")
            extra, peak = memory_in_own_process(setting, name)
            measurements.append(
                Measurement(
                    engine=name,
                    setting=setting,
                    seconds=fastest[name],
                    useful_tflops=useful_flops(setting) / fastest[name] / 1e12,
                    extra_bytes=extra,
                    peak_bytes=peak,
                    saved_bytes=saved_bytes(setting, attend),
                )
            )
    return measurements


def useful_flops(setting: Setting) -> float:
    """Return the operations on visible pairs; backward counts 2.5 times forward (five products instead of two)."""
    forward = setting.heads * setting.band.forward_flops(setting.positions, setting.head_dim)
    return forward * (3.5 if setting.backward else 1.0)


def time_by_turns(setting: Setting, contenders: dict[str, Attend], repeats: int) -> dict[str, float]:
    """Return the fastest of `repeats` runs in seconds; all engines run before any runs again."""
    inputs = setting.inputs()
    for attend in contenders.values():
        setting.run(attend, inputs)
    fastest = dict.fromkeys(contenders, float("inf"))
    for _ in range(repeats):
        for name, attend in contenders.items():
            start = time.perf_counter()
            setting.run(attend, inputs)
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    return fastest


def saved_bytes(setting: Setting, attend: Attend) -> int:
    """Return the bytes of distinct memory that forward keeps for backward."""
    if not setting.backward:
        return 0
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # Holding the storage keeps its address from being given to another one.
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    query, key, value, _ = setting.inputs()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend(query, key, value)
    return sum(storage.nbytes() for storage in kept.values())


def memory_in_own_process(setting: Setting, engine: str) -> tuple[int, int]:
    """Return what one run adds to the peak memory of a fresh process, and that whole peak, in bytes."""
    command = [sys.executable, "-m", "longformer.benchmarks.attention", engine, json.dumps(asdict(setting))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"it ended with exit code {result.returncode}"])[-1]
        raise LongformerError(f"could not measure the memory of {engine} at {setting.positions} positions: {reason}")
    extra, peak = json.loads(result.stdout)
    return extra, peak


def measure_memory(setting: Setting, engine: str) -> tuple[int, int]:
    """Run once and return what that adds to this process's peak memory, and the peak, in bytes."""
    build = engines(setting)[engine]
    attend = build(setting)
    # A small run first: what libraries allocate once is not part of the attention.
    small = replace(setting, positions=min(setting.positions, 2 * setting.window))
    small.run(build(small), small.inputs())
    inputs = setting.inputs()
    before = psutil.Process().memory_info().rss
    setting.run(attend, inputs)
    peak = peak_memory()
    return peak - before, peak


def peak_memory() -> int:
    """Return the largest resident memory this process has had, in bytes."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: on Linux that starts at what the parent held when it forked this process.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure_memory(Setting(**json.loads(sys.argv[2])), sys.argv[1])))
