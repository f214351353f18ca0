"""The local pattern as one small value: which keys a query sees, how they interleave, what they cost.

No tensors here. Total windows (paper, Hugging Face) and one-sided windows are converted to `left` and `right`
at the border of the system; past that border nobody computes with windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Neighbouring queries `start` to `stop` and the keys `low` to `high` that any of them sees; ends exclusive.

    `first_column` is the column of key `low` in the band of query `start`: 0 unless the sequence's start cuts it.
    """

    start: int
    stop: int
    low: int
    high: int
    first_column: int


@dataclass(frozen=True)
class Band:
    """The keys a query sees: `left` before itself, itself, and `right` after, each `dilation` positions apart.

    Longformer's window 512 is `Band(256, 256)`; a causal look-back of 512 is `Band(512, 0)` (semantics.md 1.2).

    Raises:
        ValueError: a side is not an integer of 0 or more, or the dilation not one of 1 or more.
    """

    left: int
    right: int
    dilation: int = 1

    def __post_init__(self) -> None:
        for name, least in (("left", 0), ("right", 0), ("dilation", 1)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"{name} must be an integer of {least} or more, not {number!r}")

    @property
    def keys(self) -> int:
        """Number of keys a query far from both ends of the sequence sees, itself included."""
        return self.left + 1 + self.right

    def sees(self, query: int, key: int) -> bool:
        """Whether the query at position `query` sees the key at position `key`."""
        steps, remainder = divmod(key - query, self.dilation)
        return remainder == 0 and -self.left <= steps <= self.right

    def stride_groups(self, positions: int) -> list[slice]:
        """Splits a sequence into the interleaved sub-sequences that never see each other.

        Inside a group the dilated band is an ordinary band, so dilation needs neither masks nor wasted scores.
        """
        return [slice(start, positions, self.dilation) for start in range(min(self.dilation, positions))]

    def blocks(self, length: int, size: int) -> Iterator[Block]:
        """Cuts a stride group of `length` positions into blocks of at most `size` queries with the keys they reach."""
        for start in range(0, length, size):
            stop = min(start + size, length)
            low, high = max(start - self.left, 0), min(stop + self.right, length)
            yield Block(start, stop, low, high, first_column=low - start + self.left)

    def pairs(self, positions: int) -> int:
        """Number of visible (query, key) pairs in a sequence of `positions`, its ends taken into account."""
        return positions + self._side_pairs(self.left, positions) + self._side_pairs(self.right, positions)

    def _side_pairs(self, side: int, positions: int) -> int:
        # At distance m * dilation there are positions - m * dilation pairs; beyond the sequence there are none.
        reach = min(side, max(positions - 1, 0) // self.dilation)
        return reach * positions - self.dilation * reach * (reach + 1) // 2

    def forward_flops(self, positions: int, head_dim: int) -> int:
        """Useful floating-point operations of one head's forward pass: two products of `head_dim` per pair."""
        return 4 * head_dim * self.pairs(positions)
