"""The chain of phases: what is done, what is next, what it starts from. The same under every backend.

A phase is a value (`PhaseTask`), the chain is a fold over the phases of the run file: each starts from the
committed result of the one before, and doing it again after an interruption does no harm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

from launcher.run_directory import RunDirectory
from longformer.errors import LongformerError
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.checkpoints.store import newest_good_checkpoint


@dataclass(frozen=True)
class PhaseTask:
    """All that a group of ranks must know to carry out one phase."""

    run_directory: Path
    phase_index: int
    ranks: int
    resume_from: Path | None
    """Verified checkpoint of this phase to go on from."""
    optimizer_from: Path | None
    """Verified last checkpoint of the phase before, whose optimizer state is kept."""


class Status(Enum):
    """How a phase, or the whole chain, ended."""

    COMPLETED = "completed"
    ROLLED_BACK = "rolled back"
    """A batch was left out; the phase is to go on from its last checkpoint."""
    REGROUPED = "regrouped"
    """Ranks came or went; the phase is to go on from its last checkpoint with those there are."""
    STOPPED = "stopped"
    LOST = "lost"
    """A machine was lost, and the job with it; the same run is to be started again."""
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """How it ended, and for a failure one sentence that says why."""

    status: Status
    message: str = ""


BackendName = Literal["local", "slurm", "ray", "torchrun"]

Ranks = int | Callable[[int], int | None]
"""How many ranks; or what says, before each start of a phase (given by its index), how many there are now, and None
when it was asked to stop instead."""


class Backend(Protocol):
    """Somewhere to run the ranks of a phase."""

    def run_phase(self, task: PhaseTask) -> Outcome:
        """Run all ranks of one phase to the end, to a requested stop, or to the first failure."""
        ...


def run_phases(
    run_directory: RunDirectory,
    backend: Backend,
    *,
    ranks: Ranks,
    warn: Callable[[str], None],
) -> Outcome:
    """Carry out every phase that is not done yet; stop at the first that does not complete.

    Args:
        run_directory: the run.
        backend: what runs a phase's ranks.
        ranks: how many.
        warn: is told why a phase starts again and what of its checkpoints is damaged.
    """
    config = run_directory.config()
    for index, phase in enumerate(config.phases):
        if run_directory.result_directory(index, phase.name).exists():
            continue
        outcome = Outcome(Status.REGROUPED)
        while outcome.status in (Status.REGROUPED, Status.ROLLED_BACK):
            if outcome.message:
                warn(outcome.message)
            ranks_now = ranks(index) if callable(ranks) else ranks
            if ranks_now is None:
                return Outcome(Status.STOPPED)
            outcome = backend.run_phase(_task(run_directory, index, ranks_now, warn))
        if outcome.status is not Status.COMPLETED:
            return outcome
    return Outcome(Status.COMPLETED)


def _task(run_directory: RunDirectory, index: int, ranks: int, warn: Callable[[str], None]) -> PhaseTask:
    phase = run_directory.config().phases[index]
    resume_from = _newest_checkpoint(run_directory, index, warn)
    optimizer_from = None
    if resume_from is None and index > 0 and phase.optimizer == "keep":
        optimizer_from = _last_checkpoint_of(run_directory, index - 1, warn)
    zero_stage = run_directory.config().training.zero_stage
    fitting = [
        checkpoint and _fitting(checkpoint, ranks=ranks, zero_stage=zero_stage)
        for checkpoint in (resume_from, optimizer_from)
    ]
    return PhaseTask(run_directory.path, index, ranks, *fitting)


def _fitting(checkpoint: Path, *, ranks: int, zero_stage: int) -> Path:
    """Return the checkpoint, or its universal copy where it was written by other ranks or another ZeRO stage."""
    if Manifest.read(checkpoint).fits(ranks=ranks, zero_stage=zero_stage):
        return checkpoint
    # Only needed here, and it imports DeepSpeed, which takes seconds.
    from longformer.training.checkpoints.reshard import universal_copy

    return universal_copy(checkpoint)


def _newest_checkpoint(run_directory: RunDirectory, index: int, warn: Callable[[str], None]) -> Path | None:
    config = run_directory.config()
    directory = run_directory.checkpoints_directory(index, config.phases[index].name)
    newest = newest_good_checkpoint(directory, warn)
    copies = config.checkpoint_copies(index)
    return newest if copies is None else copies.fetch_newer(directory, newest, warn)


def _last_checkpoint_of(run_directory: RunDirectory, index: int, warn: Callable[[str], None]) -> Path:
    phase = run_directory.config().phases[index]
    checkpoint = _newest_checkpoint(run_directory, index, warn)
    if checkpoint is None or Manifest.read(checkpoint).progress.step != phase.steps:
        result = run_directory.result_directory(index, phase.name)
        raise LongformerError(
            f"the next phase keeps the optimizer of phase {phase.name}, whose last checkpoint is missing or damaged; "
            f"remove {result} to train that phase's last steps again"
        )
    return checkpoint
