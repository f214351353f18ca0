"""Times of work on a GPU, kernel by kernel, as a replayed graph, and on the host; on a CPU a rehearsal of the same.

Whatever exists on CUDA only stands behind a function here, which on a CPU does what comes nearest, so that the scripts
for a machine with a GPU can be run to the end without one.
"""

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

from longformer.benchmarks.timing import timed

Work = Callable[[], object]
WAITING = ("aten::_local_scalar_dense", "aten::nonzero")
"""Operators whose result the host must know."""
_ACTIVITIES = {"cuda": ProfilerActivity.CUDA, "cpu": ProfilerActivity.CPU}
_DEVICE_TYPES = {"cuda": DeviceType.CUDA, "cpu": DeviceType.CPU}


def spread(seconds: list[float]) -> dict[str, float]:
    """Returns the median and the least of some times, in milliseconds."""
    return {"median_ms": 1e3 * median(seconds), "least_ms": 1e3 * min(seconds)}


def synchronize(device: str) -> None:
    """Waits until the device has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


def kernel_times(work: Work, device: str, repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of every run of every kernel on the device, by the kernel's name, in so many runs of `work`.

    On a CPU the kernels are those of the fused attention, under Triton's interpreter.
    """
    work()
    synchronize(device)
    with _named_launches(device), profile(activities=[_ACTIVITIES[device]]) as profiler:
        for _ in range(repeats):
            work()
        synchronize(device)
    times = defaultdict(list)
    for event in profiler.events() or ():
        if event.device_type == _DEVICE_TYPES[device]:
            times[event.name].append(event.time_range.elapsed_us() / 1e6)
    return dict(times)


@contextmanager
def _named_launches(device: str) -> Iterator[None]:
    """Lets a profiler of the CPU see the interpreted kernels by their names."""
    if device == "cuda":
        yield
        return
    from longformer.attention.fused import global_launch, launch

    start = launch.start

    def recorded(kernel: Any, *arguments: Any, **constants: Any) -> None:
        with record_function(kernel.__name__):
            start(kernel, *arguments, **constants)

    with patch.object(launch, "start", recorded), patch.object(global_launch, "start", recorded):
        yield


def replay_times(work: Work, device: str, repeats: int) -> list[float]:
    """Returns the seconds of every replay of `work` as a CUDA graph, into empty caches: what the device alone needs.

    `work` must not wait for the device.
    """
    if device == "cpu":
        return [timed(work, device)[0] for _ in range(repeats)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return [timed(graph.replay, device)[0] for _ in range(repeats)]


def host_seconds(work: Work, device: str, repeats: int) -> float:
    """Returns the seconds that the host needs to issue `work`, in the mean of so many runs that nobody waits for."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    seconds = (time.perf_counter() - start) / repeats
    synchronize(device)
    return seconds


def lap_times(lap: Work, device: str, laps: int) -> list[float]:
    """Returns the seconds of each of so many laps, one after another, for none of which the host waits."""
    if device == "cpu":
        return [timed(lap, device)[0] for _ in range(laps)]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(laps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        lap()
        mark.record()
    synchronize(device)
    return [first.elapsed_time(last) / 1e3 for first, last in pairwise(marks)]


def waits(work: Work, device: str) -> int:
    """Returns how often the host waits for the device in `work`.

    On a CPU, how often it asks a tensor for its value, of whatever it would be on a GPU.
    """
    if device == "cpu":
        with _Waits() as seen:
            work()
        return seen.count
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(each.message) for each in said)


class _Waits(TorchDispatchMode):
    """Counts the operators that wait where their tensors are on a device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.name().partition(".")[0] in WAITING
        return func(*args, **(kwargs or {}))


def dearest_operators(work: Work, device: str, repeats: int, *, rows: int = 15) -> list[dict[str, Any]]:
    """Returns the kernels that take the most time of the device, on a CPU the operators, dearest first.

    Milliseconds and calls are those of one run of `work`; the share is of all of them.
    """
    work()
    synchronize(device)
    with profile(activities=[_ACTIVITIES[device]]) as profiler:
        for _ in range(repeats):
            work()
        synchronize(device)
    own_time = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    averages = [each for each in profiler.key_averages() if each.device_type == _DEVICE_TYPES[device]]
    found = [(each.key, getattr(each, own_time), each.count) for each in averages]
    whole = sum(microseconds for _, microseconds, _ in found)
    return [
        {"name": name[:100], "ms": us / repeats / 1e3, "share": us / whole, "calls": calls / repeats}
        for name, us, calls in sorted(found, key=lambda each: -each[1])[:rows]
    ]


def in_words(operators: list[dict[str, Any]], *, count: int = 5) -> str:
    """Returns the first of `dearest_operators` in a line."""
    return "; ".join(f"{each['name'][:40]} {each['share']:.0%}" for each in operators[:count])
