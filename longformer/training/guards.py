"""Losses that no healthy training has, found before the update and alike on all ranks."""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Policy = Literal["stop", "skip", "roll_back"]

LOSS_HISTORY = 64
MIN_LOSSES = 16
_DEVIATION_OF_A_NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """What counts as a bad loss, and what follows."""

    on_bad_loss: Policy
    spike_threshold: float | None
    """How many robust standard deviations above the recent median a loss may lie; None = spikes are let through."""


class BadLoss(Exception):
    """A loss was refused; the message says why."""


class LossGuard:
    """Compares the loss of every step with those accepted before it.

    A loss is bad when it is not finite on some rank, or when it lies more than `spike_threshold` robust standard
    deviations (median absolute deviations, scaled) above the median of the last 64. Outliers among those hardly move
    either measure, so that one spike does not excuse the next.

    Args:
        settings: what is bad.
        recent: accepted losses before the first one compared here, oldest first.
    """

    def __init__(self, settings: GuardSettings, recent: Iterable[float] = ()) -> None:
        self.settings = settings
        self._recent = deque(recent, maxlen=LOSS_HISTORY)

    def check(self, losses: Sequence[float]) -> None:
        """Checks a step's losses, one per rank.

        Raises:
            BadLoss: they are not to be learned from.
        """
        for rank, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise BadLoss(f"the loss is {loss} on rank {rank}")
        loss = sum(losses) / len(losses)
        limit = self._limit()
        if loss > limit:
            raise BadLoss(f"the loss jumped to {loss:.4g}; by the losses before it {limit:.4g} would still be normal")

    def record(self, loss: float) -> None:
        """Adds the loss of an applied update to those that later ones are compared with."""
        self._recent.append(loss)

    def _limit(self) -> float:
        if self.settings.spike_threshold is None or len(self._recent) < MIN_LOSSES:
            return math.inf
        median = statistics.median(self._recent)
        deviation = statistics.median(abs(loss - median) for loss in self._recent)
        return median + self.settings.spike_threshold * _DEVIATION_OF_A_NORMAL * deviation
