"""The shape of everything that watches training without steering it."""

from typing import Any

from longformer.training.records import PhaseInfo, Progress, StepRecord


class Callback:
    """Does nothing at every event; override what is of interest. Runs on the ranks that own it."""

    def on_phase_start(self, phase: PhaseInfo, progress: Progress) -> None:
        """Before the first step; `progress.step` > 0 when the phase is resumed."""

    def on_step_end(self, record: StepRecord) -> None:
        """After every applied update."""

    def on_save(self) -> None:
        """Before a checkpoint of the last step is written."""

    def on_phase_end(self, phase: PhaseInfo, evaluation: dict[str, Any]) -> None:
        """After the phase's result has been committed; `evaluation` is the content of evaluation.json."""
