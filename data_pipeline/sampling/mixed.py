"""Sequences of several sources, mixed by weight."""

from collections.abc import Mapping

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence, Sequences, digest
from data_pipeline.sampling.order import sample_at

_CYCLE = 1_000


class MixedSequences:
    """Sequences drawn by weight: of every 1,000 sequences each source gives its exact share, shuffled.

    Every source is an endless order of its own; within the mix its sequences follow it but for a shuffle of its share.

    Args:
        sources: sequences and their weights; weights are relative and rounded to a thousandth.

    Raises:
        ValueError: no sources, or a weight that is not positive or below half a thousandth of all.
        DataError: the sources have different tokenizers.
    """

    def __init__(self, sources: list[tuple[Sequences, float]], *, seed: int) -> None:
        if not sources or min(weight for _, weight in sources) <= 0:
            raise ValueError("a mix needs sources with positive weights")
        self._sources = [sequences for sequences, _ in sources]
        self._shares = _rounded_shares([weight for _, weight in sources])
        self._starts = np.cumsum([0, *self._shares])
        self._seed = seed
        self.tokenizer = self._sources[0].tokenizer
        for each in self._sources:
            if each.tokenizer != self.tokenizer:
                raise DataError(
                    f"{each.name} was prepared with another tokenizer than {self._sources[0].name}: "
                    "prepare both with the same"
                )
        self.padding: Mapping[str, int | float] = self._sources[0].padding
        self.name = " and ".join(sequences.name for sequences in self._sources)
        self.fingerprint = digest("mixed", [each.fingerprint for each in self._sources], self._shares, seed)
        self.per_epoch = min(
            each.per_epoch * _CYCLE // share for each, share in zip(self._sources, self._shares, strict=True)
        )
        """Sequences until the first of the sources begins again."""

    def place(self, position: int) -> tuple[int, int]:
        """Returns which source a position of the mix belongs to, and its position in that source's own order."""
        slot = sample_at(position, epoch_size=_CYCLE, seed=self._seed)
        source = int(np.searchsorted(self._starts, slot, side="right")) - 1
        cycle = position // _CYCLE
        return source, cycle * self._shares[source] + slot - int(self._starts[source])

    def sequence(self, position: int) -> Sequence:
        """Returns the sequence of the source that the position belongs to."""
        source, own_position = self.place(position)
        return self._sources[source].sequence(own_position)

    def length(self, position: int) -> int:
        """Returns the length of that sequence."""
        source, own_position = self.place(position)
        return self._sources[source].length(own_position)

    def longest(self, per_epoch: int) -> None:
        """Returns None: every source has a length of its own."""


def _rounded_shares(weights: list[float]) -> list[int]:
    """Returns whole shares that add up to a cycle, by largest remainder."""
    exact = np.array(weights) / sum(weights) * _CYCLE
    shares = np.floor(exact).astype(int)
    missing = _CYCLE - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    if shares.min() == 0:
        raise ValueError(
            f"a weight of {min(weights)} among {sum(weights)} is too small: at least a thousandth is needed"
        )
    return shares.tolist()
