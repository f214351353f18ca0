"""What the training loop reports: the progress of a phase, one record per step, and the callbacks that receive them."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far training has come; saved with every checkpoint."""

    step: int = 0
    """Optimizer updates applied in this phase."""
    global_step: int = 0
    """Optimizer updates applied in the run so far."""
    tokens: int = 0
    """Tokens of the batches that were applied, read and written, padding not counted; all ranks, the run so far."""
    skipped_steps: int = 0
    """Batches whose update was thrown away because the gradient was not finite, the run so far."""
    seconds: float = 0.0
    """Wall time of this phase's steps, however often it was interrupted."""
    evaluated_step: int = 0
    """Step of this phase after which held-out data was evaluated last; 0 = it was not."""
    best_step: int | None = None
    """Step of this phase with the best evaluation; None where none is to be told, or there was none yet."""
    best_score: float | None = None
    """What it was told by."""
    evaluations_since_best: int = 0
    """How many evaluations came after it."""

    def at_start_of_next_phase(self) -> Self:
        """Returns what goes on from one phase to the next."""
        return type(self)(global_step=self.global_step, tokens=self.tokens, skipped_steps=self.skipped_steps)


@dataclass(frozen=True, kw_only=True)
class PhaseInfo:
    """What a phase is, told once at its start."""

    name: str
    index: int
    steps: int
    sequence_length: int
    batch_size: int
    """Sequences in a global batch."""
    ranks: int


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One applied optimizer step; a line of metrics.jsonl."""

    phase: str
    phase_index: int
    step: int
    """Step within the phase, counted from 1."""
    global_step: int
    """Step within the run, counted from 1."""
    tokens: int
    """Tokens trained on so far in the run, all ranks: read and written, padding not counted."""
    loss: float
    """Mean nats per token over all ranks, before the update."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    tokens_per_second: float
    """All ranks together."""
    mfu: float
    """Model FLOPs of the step's tokens per second over the measured peak of all ranks' devices; 0..1. Padding and what
    is computed again count as time only."""
    seconds: float
    """Wall time of the step, data included; after skipped batches, theirs too."""
    saving_seconds: float
    """Wall time between the step before and this one that a checkpoint took from training."""
    skipped_steps: int
    """Skipped batches so far in the run."""


class PhaseOutcome(Enum):
    """How the loop ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    ROLLED_BACK = "rolled back"
    """A loss was refused; the phase goes on from its last checkpoint without that batch."""


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
