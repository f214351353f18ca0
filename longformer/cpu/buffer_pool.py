"""A pool of memory for the results of layers on a CPU: what is freed is kept and given out again.

PyTorch hands a large tensor back to the operating system when it is freed, and the next step fetches the same gigabytes
anew: pages that the system fills with zeros first, a fifth of the time of a step at 16,384 tokens on a virtual machine
(docs/how-to/measure.md). What is kept here lies in huge pages where the system has them: reading across is cheaper.

Never more is kept than was in use at a time: who asks for a size that is not there takes the place of what lies free.
"""

import mmap
import weakref
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from math import prod

import torch
from torch import Tensor

# What is smaller is the allocator's: the C library keeps it itself (see `longformer.cpu.residual`).
MIN_BYTES = 8 * 2**20


class BufferPool:
    """Slabs of memory by their size in bytes; `free` holds those that no tensor uses.

    A slab serves one tensor and all its views, and is free when the last of them is gone, autograd's included. No step
    needs a lock: taking from and adding to a list is one operation of Python, and whoever comes late finds it empty.
    """

    def __init__(self) -> None:
        self.free: defaultdict[int, list[mmap.mmap]] = defaultdict(list)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Returns a contiguous tensor on the CPU, its content undefined.

        Raises:
            RuntimeError: there is no memory, in PyTorch's words.
        """
        size = slab_bytes(prod(shape) * dtype.itemsize)
        slab = self._take(size)
        fresh = slab is None
        if slab is None:
            self._release(size)
            try:
                slab = new_slab(size)
            except OSError:
                return torch.empty(shape, dtype=dtype)
        # The tensor's storage holds this view, and nothing else does.
        view = memoryview(slab)
        weakref.finalize(view, self.free[size].append, slab).atexit = False
        # Resized, since a tensor that is a view of another is one autograd does not add to in place.
        tensor = torch.frombuffer(view, dtype=dtype, count=prod(shape)).resize_(shape)
        # All threads fetch fresh memory; written a few rows at a time one of them would, while the others wait.
        return tensor.zero_() if fresh else tensor

    def _take(self, size: int) -> mmap.mmap | None:
        with suppress(IndexError):
            return self.free[size].pop()
        return None

    def _release(self, size: int) -> None:
        """Gives back at least `size` bytes of what lies free, or all of it."""
        for of_slab, slabs in list(self.free.items()):
            with suppress(IndexError):
                while size > 0:
                    slabs.pop()
                    size -= of_slab


def new_slab(size: int) -> mmap.mmap:
    """Returns memory that the operating system has yet to fetch, in huge pages where it has them."""
    slab = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            slab.madvise(mmap.MADV_HUGEPAGE)
    return slab


def slab_bytes(size: int) -> int:
    """Returns the size of a slab for `size` bytes, at most an eighth larger: texts of about the same length share."""
    step = 2 ** max(size.bit_length() - 4, 0)
    return -(-size // step) * step


POOL = BufferPool()


def new_empty(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns a contiguous tensor of this shape, undefined, with the dtype and device of the one given."""
    if tensor.device.type != "cpu" or prod(shape) * tensor.element_size() < MIN_BYTES:
        return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
    return POOL.empty(shape, tensor.dtype)


def empty_like(tensor: Tensor) -> Tensor:
    """Returns a contiguous tensor in the shape of one that may be a view."""
    return new_empty(tensor, tensor.shape)
