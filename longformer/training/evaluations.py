"""Evaluation of held-out data within a phase: the best step so far, and when no better one is waited for any more.

Everything that is remembered lies in `Progress`, and so in every checkpoint.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from longformer.training.records import Progress


@dataclass(frozen=True, kw_only=True)
class IntervalEvaluation:
    """What is evaluated within a phase, and what follows."""

    evaluate: Callable[[Progress], float | None]
    """Evaluates the model after a step and returns the score that tells the best step; None where none is to be told.
    All ranks call it and get the same."""
    higher_is_better: bool = True
    patience: int | None = None
    """Training ends after so many evaluations in a row without a new best one; None = it does not."""

    def after(self, progress: Progress) -> Progress:
        """Returns the progress with what an evaluation after its step has found.

        A score that is not finite is never the best; neither is one that only equals the best before it.
        """
        score = self.evaluate(progress)
        progress = replace(progress, evaluated_step=progress.step)
        if score is None:
            return progress
        if math.isfinite(score) and (progress.best_score is None or self._is_better(score, progress.best_score)):
            return replace(progress, best_step=progress.step, best_score=score, evaluations_since_best=0)
        return replace(progress, evaluations_since_best=progress.evaluations_since_best + 1)

    def are_enough(self, progress: Progress) -> bool:
        """Returns whether training is to end before the last step."""
        return self.patience is not None and progress.evaluations_since_best >= self.patience

    def _is_better(self, score: float, other: float) -> bool:
        return score > other if self.higher_is_better else score < other
