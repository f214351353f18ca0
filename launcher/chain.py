"""The chain of a run with prepared data: convert, train phase by phase, export, register. The same under every backend.

Each step leaves a directory or file that exists whole or not at all, and is skipped where that is there already.
"""

from collections.abc import Callable
from pathlib import Path

from launcher.phases import Backend, Outcome, Ranks, Status, run_phases
from launcher.run_directory import RunDirectory
from launcher.tasks.kinds import task_of
from launcher.tasks.task import Task
from longformer.errors import LongformerError
from longformer.files import committed_directory


def run_chain(run: RunDirectory, backend: Backend, *, ranks: Ranks, warn: Callable[[str], None]) -> Outcome:
    """Carry out every step that is not done yet; stop at the first that does not complete.

    Only training needs the backend's ranks; the other steps are done by the process that drives it.

    Raises:
        LongformerError: a model cannot be read, converted or written.
        WorkFailed: MLflow, where the model is to be registered, does not answer or refuses.
    """
    task = task_of(run.config())
    if task.has_start:
        _commit(run.start_directory, task.make_start)
    outcome = run_phases(run, backend, ranks=ranks, warn=warn)
    if outcome.status is Status.COMPLETED and task.has_export:
        _commit(run.export_directory, lambda target: task.export(_last_model(run), target))
    name = run.config().tracking.register_as
    if outcome.status is Status.COMPLETED and name is not None and not run.registration_file.exists():
        from launcher.registry.registration import register_run  # which imports MLflow, which takes seconds

        register_run(run, name)
    return outcome


def is_done(run: RunDirectory) -> bool:
    """Return whether nothing is left to do."""
    return all(result.exists() for result in _results(run, task_of(run.config())))


def _results(run: RunDirectory, task: Task) -> list[Path]:
    phases = [run.result_directory(index, phase.name) for index, phase in enumerate(run.config().phases)]
    export = [run.export_directory] if task.has_export else []
    registration = [run.registration_file] if run.config().tracking.register_as is not None else []
    return [*phases, *export, *registration]


def _last_model(run: RunDirectory) -> Path:
    phases = run.config().phases
    return run.result_directory(len(phases) - 1, phases[-1].name) / "model"


def _commit(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a directory that becomes `target`, unless that is there."""
    if target.exists():
        return
    try:
        with committed_directory(target) as staging:
            write(staging)
    except OSError as error:
        raise LongformerError(f"{target} could not be written ({error}); make room, then resume") from error
