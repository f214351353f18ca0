"""How many processes may train together: a number, or the fewest and the most, as a person writes them."""

from dataclasses import dataclass
from typing import Self

from longformer.errors import LongformerError


@dataclass(frozen=True)
class RankRange:
    """The fewest and the most ranks; equal where there is no choice."""

    fewest: int
    most: int

    @classmethod
    def parse(cls, written: str) -> Self:
        """Return the range that is written as 4 or as 2-4.

        Raises:
            ValueError: it is neither.
        """
        first, dash, last = written.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{written!r} is neither a number of ranks such as 4 nor a range of them such as 2-4")
        fewest, most = int(first), int(last or first)
        if not 1 <= fewest <= most:
            raise ValueError(f"{written!r} is no range of ranks: the fewest come first, and they are at least 1")
        return cls(fewest, most)

    def __str__(self) -> str:
        return str(self.most) if self.fewest == self.most else f"{self.fewest}-{self.most}"


def given_ranks(option: str) -> RankRange:
    """Return the range that `--ranks` was given.

    Raises:
        LongformerError: it is none.
    """
    try:
        return RankRange.parse(option)
    except ValueError as error:
        raise LongformerError(f"--ranks: {error}") from None
