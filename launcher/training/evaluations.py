"""The evaluations within a phase, as often as the run file says.

They are kept in evaluations.jsonl, one a line: phase, step, tokens, and the scores of the validation split.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.config.run_config import unknown_metric
from launcher.config.sections import PhaseSection
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation
from longformer.errors import LongformerError
from longformer.files import write_atomically
from longformer.training.evaluations import IntervalEvaluation
from longformer.training.records import Progress


@dataclass
class PhaseEvaluations:
    """What one rank evaluates in a phase.

    Args:
        run: the run.
        phase_index: which phase.
        evaluate: evaluates the present model on the validation split.
        writes: whether this is the rank that writes what is written once.
    """

    run: Run
    phase_index: int
    evaluate: Callable[[], Evaluation]
    writes: bool

    @property
    def _phase(self) -> PhaseSection:
        return self.run.config.phases[self.phase_index]

    def within(self) -> IntervalEvaluation:
        """Returns what the training loop is to evaluate."""
        best = self._phase.best
        if best is None:
            return IntervalEvaluation(evaluate=self._evaluate_at)
        return IntervalEvaluation(
            evaluate=self._evaluate_at,
            higher_is_better=self.run.config.higher_is_better(best),
            patience=best.patience,
        )

    def _evaluate_at(self, progress: Progress) -> float | None:
        evaluation = self.evaluate()
        best = self._phase.best
        score = None if best is None else self._score(evaluation.scores, best.metric)
        if self.writes:
            self._write(progress, evaluation)
        return score

    def _score(self, scores: Mapping[str, Any], metric: str) -> float:
        """Returns the score that a metric names; NaN for one of the task's that has no value for this model.

        Raises:
            LongformerError: no evaluation of the task has such a number.
        """
        numbers = {name: each for name, each in scores.items() if isinstance(each, int | float)}
        if metric not in numbers and self.run.config.words.metrics is None:
            raise LongformerError(f"phases[{self.phase_index}].best.{unknown_metric(metric, numbers)}")
        return float(numbers.get(metric, math.nan))

    def _write(self, progress: Progress, evaluation: Evaluation) -> None:
        """Adds a line; what stands there of this step and later ones is of before the run went back.

        Raises:
            LongformerError: it cannot be written.
        """
        record = {
            "phase": self._phase.name,
            "phase_index": self.phase_index,
            "step": progress.step,
            "global_step": progress.global_step,
            "tokens": progress.tokens,
            "validation": evaluation.scores,
        }
        path = self.run.paths.evaluations_file
        before = [each for each in MetricsFollower(path).new_records() if each["global_step"] < progress.global_step]
        try:
            write_atomically(path, "".join(json.dumps(each) + "\n" for each in [*before, record]).encode())
        except OSError as error:
            raise LongformerError(f"{path} cannot be written ({error.strerror}); make room, then resume") from error
