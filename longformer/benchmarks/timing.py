"""Timing work on a CPU or a GPU."""

import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
# More than any GPU's last cache.
CACHE_BYTES = 2**28


def timed(work: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Does `work` and returns the seconds it took, and its result."""
    if device == "cpu":
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Empties the caches, and keeps the device busy while the host issues the work to be timed.
    cache_filler().zero_()
    first.record()
    result = work()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3, result


@cache
def cache_filler() -> Tensor:
    """Returns memory on the GPU that pushes everything else out of its caches."""
    return torch.empty(CACHE_BYTES, dtype=torch.int8, device="cuda")
