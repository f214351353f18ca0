"""The shape of everything that watches training without steering it."""

from pathlib import Path
from typing import Any

from longformer.training.records import PhaseInfo, Progress, StepRecord


class Callback:
    """Does nothing at every event; override what is of interest. Runs on the ranks that own it."""

    def on_phase_start(self, phase: PhaseInfo, progress: Progress) -> None:
        """Before the first step; `progress.step` > 0 when the phase is resumed."""

    def on_step_end(self, record: StepRecord) -> None:
        """After every applied update."""

    def on_checkpoint(self, path: Path) -> None:
        """After a checkpoint has been committed at `path`."""

    def on_phase_end(self, phase: PhaseInfo, evaluation: dict[str, Any]) -> None:
        """After the phase's result has been committed; `evaluation` is the content of evaluation.json."""
