"""All examples of a split in one endless, shuffled line, of which any stretch can be asked for.

In every epoch the shards are shuffled, every `open_shards` of them form a group, and the examples of a group are
shuffled together. Only the shards of one group are needed at a time, so memory and open files are bounded; the next
group's are fetched meanwhile. The line is a pure function of the seed: every process can compute any part of it.

Quality: with `open_shards` at least the number of shards it is a uniform shuffle of everything. With fewer, every
group is a random sample of the shards, and examples of one shard lie within one group, not over the whole epoch.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_pipeline.sampling.order import permutation
from data_pipeline.shards.prepared import Split

_KEPT = 3  # the end of one group, the beginning of the next, and one more where sources are mixed


@dataclass(frozen=True)
class Piece:
    """A part of an example."""

    shard: int
    example: int
    start: int
    stop: int


@dataclass(frozen=True)
class _Group:
    """The examples of a group in their order."""

    shards: np.ndarray
    examples: np.ndarray
    ends: np.ndarray
    """Where each ends, counted from the beginning of the group."""


@dataclass(frozen=True)
class _Epoch:
    groups: list[np.ndarray]
    """The shards of every group."""
    ends: np.ndarray
    """Where each ends, counted from the beginning of the epoch."""


@dataclass
class ShuffledExamples:
    """The examples of `split`, one behind the other without end.

    An example takes up one position on the line; or, where `text` names token ids, as many as it has of them and `gap`
    positions behind them.
    """

    split: Split
    seed: int
    text: str | None = None
    gap: int = 0
    _epochs: OrderedDict[int, _Epoch] = field(default_factory=OrderedDict)
    _groups: OrderedDict[tuple[int, int], _Group] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        shards = self.split.shards
        extents = [
            shard.examples if self.text is None else shard.tokens.get(self.text, 0) + self.gap * shard.examples
            for shard in shards
        ]
        self._extents = np.array(extents, dtype=np.int64)
        self.length = int(self._extents.sum())
        """Positions in one epoch."""

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """Returns what stands at the positions start .. stop - 1 of the line, in order; both may lie in any epoch."""
        found: list[Piece] = []
        while start < stop:
            epoch, offset = divmod(start, self.length)
            ends = self._epoch(epoch).ends
            number = int(np.searchsorted(ends, offset, side="right"))
            group_start = int(ends[number - 1]) if number else 0
            group = self._group(epoch, number)
            taken = self._pieces_of_group(
                group, offset - group_start, min(stop - start + offset, int(ends[number])) - group_start
            )
            found += taken
            start += sum(piece.stop - piece.start for piece in taken)
        return found

    def _pieces_of_group(self, group: _Group, start: int, stop: int) -> list[Piece]:
        found = []
        number = int(np.searchsorted(group.ends, start, side="right"))
        while start < stop:
            example_start = int(group.ends[number - 1]) if number else 0
            end = min(stop, int(group.ends[number]))
            found.append(
                Piece(
                    int(group.shards[number]),
                    int(group.examples[number]),
                    start - example_start,
                    end - example_start,
                )
            )
            start = end
            number += 1
        return found

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            order = permutation(len(self.split.shards), (self.seed, "shards", epoch))
            groups = [order[at : at + self.split.open_shards] for at in range(0, len(order), self.split.open_shards)]
            ends = np.cumsum([self._extents[group].sum() for group in groups])
            self._epochs[epoch] = _Epoch(groups, ends)
            _forget_oldest(self._epochs)
        return self._epochs[epoch]

    def _group(self, epoch: int, number: int) -> _Group:
        key = (epoch, number)
        if key not in self._groups:
            chosen = self._epoch(epoch).groups[number]
            self.split.prefetch(chosen.tolist())
            counts = [self.split.shards[shard].examples for shard in chosen.tolist()]
            # The word is part of the key: another would give another order.
            order = permutation(sum(counts), (self.seed, "documents", epoch, number))
            extents = np.ones(sum(counts), dtype=np.int64)
            if self.text is not None:
                lengths = [self.split.lengths(shard, self.text) for shard in chosen.tolist()]
                extents = np.concatenate(lengths) + self.gap
            self._groups[key] = _Group(
                shards=np.repeat(chosen, counts)[order],
                examples=np.concatenate([np.arange(count) for count in counts])[order],
                ends=np.cumsum(extents[order]),
            )
            _forget_oldest(self._groups)
            self.split.prefetch(self._shards_after(epoch, number))
        return self._groups[key]

    def _shards_after(self, epoch: int, number: int) -> list[int]:
        groups = self._epoch(epoch).groups
        following = groups[number + 1] if number + 1 < len(groups) else self._epoch(epoch + 1).groups[0]
        return following.tolist()


def _forget_oldest(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > _KEPT:
        kept.popitem(last=False)
