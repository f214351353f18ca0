"""The chain of phases: what is done, what is next, what it starts from. The same under every backend.

A phase is a value (`PhaseTask`), the chain is a fold over the phases of the run file: each starts from the
committed result of the one before, and doing it again after an interruption does no harm.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, Self

from launcher.runs.run import Run
from launcher.tasks.base import Task
from launcher.tasks.registry import task_of, task_of_run
from longformer.errors import LongformerError
from longformer.files import committed_directory
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.checkpoints.store import (
    checkpoint_path,
    committed_checkpoints,
    newest_good_checkpoint,
    step_of,
)


@dataclass(frozen=True)
class PhaseTask:
    """All that a group of ranks must know to carry out one phase."""

    run: Run
    phase_index: int
    ranks: int
    resume_from: Path | None
    """Verified checkpoint of this phase to go on from."""
    optimizer_from: Path | None
    """Verified checkpoint of the phase before that its result was made of; its optimizer state is kept."""
    is_trial: bool = field(default=False, kw_only=True)
    """Whether a few steps are taken only to see what they cost; what they learn is thrown away."""


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


Ranks = int | Callable[[int], int | None]
"""How many ranks; or what says, before each start of a phase (given by its index), how many there are now, and None
when it was asked to stop instead."""


class Backend(Protocol):
    """Somewhere to run the ranks of a phase."""

    def run_phase(self, task: PhaseTask) -> Outcome:
        """Runs all ranks of one phase to the end, to a requested stop, or to the first failure."""
        ...


def run_phases(
    run: Run,
    backend: Backend,
    *,
    ranks: Ranks,
    warn: Callable[[str], None],
) -> Outcome:
    """Carries out every phase that is not done yet; stops at the first that does not complete.

    Args:
        run: the run.
        backend: what runs a phase's ranks.
        ranks: how many.
        warn: is told why a phase starts again and what of its checkpoints is damaged.
    """
    for index in range(len(run.config.phases)):
        if run.result_directory(index).exists():
            continue
        outcome = Outcome(Status.REGROUPED)
        while outcome.status in (Status.REGROUPED, Status.ROLLED_BACK):
            if outcome.message:
                warn(outcome.message)
            ranks_now = ranks(index) if callable(ranks) else ranks
            if ranks_now is None:
                return Outcome(Status.STOPPED)
            outcome = backend.run_phase(_task(run, index, ranks_now, warn))
        if outcome.status is not Status.COMPLETED:
            return outcome
    return Outcome(Status.COMPLETED)


def _task(run: Run, index: int, ranks: int, warn: Callable[[str], None]) -> PhaseTask:
    phase = run.config.phases[index]
    resume_from = _newest_checkpoint(run, index, warn)
    optimizer_from = None
    if resume_from is None and index > 0 and phase.optimizer == "keep":
        optimizer_from = _checkpoint_of_result(run, index - 1, warn)
    zero_stage = run.config.training.zero_stage
    fitting = [
        checkpoint and fitting_checkpoint(checkpoint, ranks=ranks, zero_stage=zero_stage)
        for checkpoint in (resume_from, optimizer_from)
    ]
    return PhaseTask(run, index, ranks, *fitting)


def fitting_checkpoint(checkpoint: Path, *, ranks: int, zero_stage: int) -> Path:
    """Returns a verified checkpoint, or its universal copy where other ranks or another ZeRO stage have written it."""
    if Manifest.read(checkpoint).fits(ranks=ranks, zero_stage=zero_stage):
        return checkpoint
    # Only needed here, and it imports DeepSpeed, which takes seconds.
    from longformer.training.checkpoints.reshard import universal_copy

    return universal_copy(checkpoint)


def _newest_checkpoint(run: Run, index: int, warn: Callable[[str], None]) -> Path | None:
    directory = run.checkpoints_directory(index)
    newest = newest_good_checkpoint(directory, warn)
    copies = run.config.checkpoint_copies(index)
    return newest if copies is None else copies.fetch_newer(directory, newest, warn)


def _checkpoint_of_result(run: Run, index: int, warn: Callable[[str], None]) -> Path:
    result = run.result_directory(index)
    progress = Manifest.read(result).progress
    last = _newest_checkpoint(run, index, warn)
    if last is None or step_of(last) != progress.step:
        raise LongformerError(
            f"the next phase keeps the optimizer of phase {run.config.phases[index].name}, whose last checkpoint is "
            f"missing or damaged; remove {result} to train that phase's last steps again"
        )
    # The best one is as good as the last, of which it is a part.
    return last if progress.best_step is None else checkpoint_path(last.parent, progress.best_step)


@dataclass(frozen=True)
class LostRanks:
    """How often ranks were lost without a new checkpoint in between."""

    count: int = 0
    newest: str | None = None
    """The newest checkpoint when it last happened; None = the phase had none."""

    def one_more(self, checkpoints: Path) -> Self:
        """Returns the count after ranks were lost once more, now, in a phase with these checkpoints."""
        newest = max(map(str, committed_checkpoints(checkpoints)), default=None)
        return type(self)(self.count + 1 if newest == self.newest else 1, newest)

    def message(self, what: str, *, max_failures: int) -> str:
        """Returns the sentence with which a run ends that has lost ranks more often than allowed.

        Args:
            what: what was lost last.
            max_failures: how often was allowed.
        """
        return (
            f"{what}, and that {self.count} times without a new checkpoint in between (cluster.max_failures is "
            f"{max_failures})"
        )


def run_chain(run: Run, backend: Backend, *, ranks: Ranks, warn: Callable[[str], None]) -> Outcome:
    """Carries out every step that is not done yet; stops at the first that does not complete.

    Only training needs the backend's ranks; the other steps are done by the process that drives it.

    Raises:
        LongformerError: a model cannot be read, converted or written.
        WorkFailed: MLflow, where the model is to be registered, does not answer or refuses.
    """
    task = task_of_run(run)
    outcome = run_phases(run, backend, ranks=ranks, warn=warn)
    if outcome.status is Status.COMPLETED and task.has_export:
        _commit(run.paths.export_directory, lambda target: task.export(_last_model(run), target))
    name = run.config.tracking.register_as
    if outcome.status is Status.COMPLETED and name is not None and not run.paths.registration_file.exists():
        from launcher.tracking.registry.register import register_run  # which imports MLflow, which takes seconds

        register_run(run, name)
    return outcome


def is_done(run: Run) -> bool:
    """Returns whether nothing is left to do."""
    return all(result.exists() for result in _results(run, task_of(run.config)))


def _results(run: Run, task: Task[Any, Any]) -> list[Path]:
    phases = [run.result_directory(index) for index in range(len(run.config.phases))]
    export = [run.paths.export_directory] if task.has_export else []
    registration = [run.paths.registration_file] if run.config.tracking.register_as is not None else []
    return [*phases, *export, *registration]


def _last_model(run: Run) -> Path:
    return run.result_directory(len(run.config.phases) - 1) / "model"


def _commit(target: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a directory that becomes `target`, unless that is there."""
    if target.exists():
        return
    try:
        with committed_directory(target) as staging:
            write(staging)
    except OSError as error:
        raise LongformerError(f"{target} could not be written ({error}); make room, then resume") from error
