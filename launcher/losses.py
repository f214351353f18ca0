"""Counts how often a run has lost ranks since its newest checkpoint, so that it is not started again for ever."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from longformer.training.checkpoints.store import committed_checkpoints


@dataclass(frozen=True)
class Losses:
    """The losses up to the latest."""

    count: int = 0
    newest: str | None = None
    """The newest checkpoint at that moment; None = the phase had none."""

    def one_more(self, checkpoints: Path) -> Self:
        """Return the losses with one that happens now, in a phase with these checkpoints."""
        newest = max(map(str, committed_checkpoints(checkpoints)), default=None)
        return type(self)(self.count + 1 if newest == self.newest else 1, newest)

    def told(self, what: str, *, most: int) -> str:
        """Return a sentence that ends a run which had more than so many losses, about the latest of them."""
        return (
            f"{what}, and that {self.count} times without a new checkpoint in between (cluster.max_failures is {most})"
        )
