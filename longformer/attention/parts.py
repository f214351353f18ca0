"""Cutting the work into parts: sequences of one dilation and lane, few enough that their scores stay in the cache.

Inside a part dilation is gone: it is a batch of ordinary sequences with an ordinary band.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from longformer.attention.band import Band

# Scores computed at a time. On a CPU a tile and its gradient must fit the second-level caches; elsewhere the
# cost of starting a kernel outweighs the cache.
CPU_TILE_SCORES = 2**19
DEVICE_TILE_SCORES = 2**25


@dataclass(frozen=True)
class Part:
    """Some heads of some examples, at the positions of one lane of their band."""

    examples: slice
    lane: slice
    heads: slice
    band: Band

    @property
    def length(self) -> int:
        """Number of positions."""
        return len(range(self.lane.start, self.lane.stop, self.lane.step))

    def take(self, tensor: Tensor) -> Tensor:
        """Copy the part out of (batch, positions, heads, head_dim) to (heads * examples, length, head_dim).

        The copy is contiguous and at least float32, which is what fast, exact matrix products want.
        """
        part = tensor[self.examples, self.lane, self.heads].permute(2, 0, 1, 3)
        return part.to(computing_dtype(tensor), memory_format=torch.contiguous_format).flatten(0, 1)

    def put(self, part: Tensor, destination: Tensor) -> None:
        """Write back into (batch, positions, heads, head_dim) what `take` reads."""
        home = destination[self.examples, self.lane, self.heads]
        home.copy_(part.unflatten(0, (home.shape[2], home.shape[0])).permute(1, 2, 0, 3))

    def add(self, part: Tensor, destination: Tensor) -> None:
        """Add to what `take` reads from (batch, positions, heads, head_dim)."""
        home = destination[self.examples, self.lane, self.heads]
        home.add_(part.unflatten(0, (home.shape[2], home.shape[0])).permute(1, 2, 0, 3))


def computing_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype of scores and sums: float32, or float64 for float64 tensors."""
    return torch.promote_types(tensor.dtype, torch.float32)


def block_size(band: Band) -> int:
    """Return how many queries form a block.

    Larger blocks make the matrix products more efficient, smaller ones compute fewer scores outside the band.
    """
    return 128 if band.keys > 512 else 64


def parts_of(query: Tensor, *, left: int, right: int, dilations: Sequence[int]) -> Iterator[Part]:
    """Cut a (batch, positions, heads, head_dim) problem into parts."""
    batch, positions, _, _ = query.shape
    tile_scores = CPU_TILE_SCORES if query.device.type == "cpu" else DEVICE_TILE_SCORES
    first = 0
    for dilation, group in groupby(dilations):
        last = first + len(list(group))
        band = Band(left, right, dilation)
        rows = min(block_size(band), positions)
        sequences = max(1, tile_scores // max(1, rows * min(rows + left + right, positions)))
        for lane in band.lanes(positions):
            for heads in slices(first, last, max(1, sequences // max(1, batch))):
                for examples in slices(0, batch, sequences):
                    yield Part(examples, lane, heads, band)
        first = last


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Cut `start` to `stop` into slices of at most `size`."""
    for low in range(start, stop, size):
        yield slice(low, min(low + size, stop))
