"""Cutting the work into parts: sequences of one dilation and stride group, few enough that their scores fit the cache.

Inside a part dilation is gone: it is a batch of ordinary sequences with an ordinary band. Parts do not depend on each
other: on a CPU every thread computes parts of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from threading import get_ident

import torch
from torch import Tensor

from longformer.attention.band import Band, Block

# Scores computed at a time. On a CPU more would leave the caches of a core, and fewer would start more operators (as
# measured on an AMD EPYC 9004); elsewhere the cost of starting a kernel outweighs the cache.
CPU_TILE_SCORES = 2**19
DEVICE_TILE_SCORES = 2**25


class Scratch:
    """Named buffers of one dtype on one device, each as large as its largest use; every thread has its own.

    They are used again from tile to tile and from part to part of one call: fresh pages for every tile would cost the
    operating system more time than the sums cost the processor.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.buffers: dict[tuple[int, str], Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Returns the buffer `name` in this shape, contiguous, its content undefined."""
        size, place = prod(shape), (get_ident(), name)
        if place not in self.buffers or self.buffers[place].numel() < size:
            self.buffers[place] = torch.empty(size, dtype=self.dtype, device=self.device)
        return self.buffers[place][:size].view(shape)


@dataclass(frozen=True)
class Part:
    """Some heads of some examples, at the positions of one stride group of their band."""

    examples: slice
    positions: slice
    heads: slice
    band: Band

    def take(self, tensor: Tensor, name: str, scratch: Scratch) -> Tensor:
        """Returns the part of (batch, positions, heads, head_dim) as (heads * examples, length, head_dim).

        Matrix products read it where it stands if its dtype is that of `scratch` and its sequences lie at even
        distances. Otherwise it is copied to the buffer `name`.
        """
        sequences = self._view(tensor).permute(2, 0, 1, 3)
        if tensor.dtype == scratch.dtype and 1 in sequences.shape[:2]:
            return sequences.flatten(0, 1)
        out = scratch(name, self.shape(tensor))
        self._like_view(out).copy_(self._view(tensor))
        return out

    def put(self, part: Tensor, destination: Tensor) -> None:
        """Writes back into (batch, positions, heads, head_dim) what `take` reads."""
        self._view(destination).copy_(self._like_view(part))

    def add(self, part: Tensor, destination: Tensor) -> None:
        """Adds to what `take` reads from (batch, positions, heads, head_dim)."""
        self._view(destination).add_(self._like_view(part))

    def shape(self, tensor: Tensor) -> tuple[int, int, int]:
        """Returns (heads * examples, length, head_dim) for a tensor (batch, positions, heads, head_dim)."""
        examples, length, heads, head_dim = self._view(tensor).shape
        return heads * examples, length, head_dim

    def within(self, block: Block) -> "Part":
        """Returns the same sequences at the positions of a block of queries."""
        start, step = self.positions.start, self.positions.step
        return replace(self, positions=slice(start + block.start * step, start + (block.stop - 1) * step + 1, step))

    def _view(self, tensor: Tensor) -> Tensor:
        return tensor[self.examples, self.positions, self.heads]

    def _like_view(self, part: Tensor) -> Tensor:
        heads = self.heads.stop - self.heads.start
        return part.unflatten(0, (heads, -1)).permute(1, 2, 0, 3)


def computing_dtype(tensor: Tensor) -> torch.dtype:
    """Returns the dtype of scores and sums: float32, or float64 for float64 tensors."""
    return torch.promote_types(tensor.dtype, torch.float32)


def block_rows(left: int, right: int) -> int:
    """Returns the maximum number of queries in a block, for a band with so many keys on its sides.

    Fewer make the matrix products inefficient, more compute scores outside the band. Measured: 128 take 7 % less time
    than 64 with a window of 512, and 8 % more with one of 256.
    """
    return 128 if left + right >= 512 else 64


def parts_of(query: Tensor, *, left: int, right: int, dilations: Sequence[int]) -> Iterator[Part]:
    """Cuts a (batch, positions, heads, head_dim) problem into parts of about equal size."""
    batch, positions, _, _ = query.shape
    rows = min(block_rows(left, right), positions)
    scores = max(1, rows * min(rows + left + right, positions))
    on_cpu = query.device.type == "cpu"
    sequences = max(1, round((CPU_TILE_SCORES if on_cpu else DEVICE_TILE_SCORES) / scores))
    threads = torch.get_num_threads() if on_cpu else 1
    first = 0
    for dilation, group in groupby(dilations):
        last = first + len(list(group))
        band = Band(left, right, dilation)
        for stride_group in band.stride_groups(positions):
            # Heads of one example lie at even distances; more examples only where heads are too few.
            for heads in even_slices(first, last, sequences, threads):
                for examples in even_slices(0, batch, max(1, sequences // (heads.stop - heads.start))):
                    yield Part(examples, stride_group, heads, band)
        first = last


def even_slices(start: int, stop: int, largest: int, multiple: int = 1) -> Iterator[slice]:
    """Cuts `start` to `stop` into slices of at most `largest`, as equal and as few as possible.

    Their number is a multiple of `multiple` where that leaves none empty.
    """
    count = -(-(stop - start) // largest)
    count = min(-(-count // multiple) * multiple, stop - start)
    for index in range(count):
        yield slice(start + (stop - start) * index // count, start + (stop - start) * (index + 1) // count)
