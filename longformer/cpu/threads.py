"""Work split once among threads, instead of the many small parallel regions that PyTorch's own threads would share.

Every parallel region ends when its slowest thread does. Beside another busy process some thread is always waiting for a
core, and the others spin until it has had its turn: thousands of regions in a row then take tens of times as long.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Returns `work(item)` for every item, in order, computed by as many threads as PyTorch uses.

    Each thread computes alone, with one of PyTorch's threads; only where there are fewer items than threads it has its
    share of them. Nothing is recorded for autograd.

    Raises:
        Exception: what `work` raised first, in the order of the items.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(items))
    if workers < 2:
        return [work(item) for item in items]
    return list(_pool(workers, threads // workers, os.getpid()).map(torch.no_grad()(work), items))


@cache
def _pool(workers: int, threads_each: int, process: int) -> ThreadPoolExecutor:
    """Returns the workers of a process; threads do not survive a fork.

    `torch.set_num_threads` holds for the thread that calls it and, as a default, for threads that have not used PyTorch
    yet: so all workers start here, and then the default is set back.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "longformer", initializer=_use_threads, initargs=(threads_each,))
    started = Barrier(workers + 1)
    for _ in range(workers):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(threads)
    return pool


def _use_threads(count: int) -> None:
    torch.set_num_threads(count)
    torch.get_num_threads()  # from the first use on, this thread does not follow the default
