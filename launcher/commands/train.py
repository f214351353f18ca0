"""`longformer train` and `longformer resume`: prepare the data, run the phases, report; go on where it stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from launcher.backends.local import LocalBackend, warm_up
from launcher.backends.local_rank import EXIT_STOPPED
from launcher.backends.slurm import SlurmBackend, nodes_of_this_job
from launcher.chain import is_done, run_chain
from launcher.interruption import StopFlag, signals_noted
from launcher.phases import Backend, BackendName, Outcome, Status
from launcher.progress import RunProgress
from launcher.run_directory import RunDirectory
from launcher.run_file import RunConfig
from launcher.tasks.kinds import task_of
from launcher.tracking import finish_run, start_or_continue_run
from longformer.errors import WorkFailed


def train(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as phases.0.steps=100.")
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    run_directory: Annotated[Path | None, typer.Option(help="Where the run lies; runs/NAME unless given.")] = None,
    backend: Annotated[
        BackendName, typer.Option(help="Where the ranks run: on this machine, or on all nodes of this Slurm job.")
    ] = "local",
) -> int:
    """Train a model phase by phase, as a run file says; the same command again goes on where it stopped."""
    config = RunConfig.load(run_file, overrides or [])
    config.check_ranks(ranks)
    if backend == "slurm":
        nodes_of_this_job(ranks=ranks)
    run = RunDirectory(run_directory or Path("runs") / config.name)
    task = task_of(config)
    data = task.prepare()
    for note in task.check():
        typer.echo(f"note: {note}", err=True)
    with run.locked() as lock:
        if run.exists:
            run.continue_with(config, ranks=ranks, data_fingerprint=data.fingerprint)
        else:
            run.create(config, ranks=ranks, data_directory=data.directory, data_fingerprint=data.fingerprint)
        return _go_on(run, lock, backend)


def resume(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of an interrupted run.")],
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Processes that train together; as many as before unless given.")
    ] = None,
) -> int:
    """Go on with an interrupted run from its newest good checkpoint, with as many processes as there are now."""
    run = RunDirectory(run_directory)
    identity = run.identity()  # refuses what is not a run before a lock is made in it
    with run.locked() as lock:
        if ranks is not None:
            run.continue_with(run.config(), ranks=ranks, data_fingerprint=identity.data_fingerprint)
        return _go_on(run, lock, "local")


def _go_on(run: RunDirectory, lock: int, backend: BackendName) -> int:
    """Run every phase that is not done, in the foreground; return the exit code."""
    config, identity = run.config(), run.identity()
    if is_done(run):
        task_of(config).report(run)
        return 0
    if backend == "local":
        warm_up()
    run_id = start_or_continue_run(config, run.path)
    run.write_identity(replace(identity, mlflow_run_id=run_id))
    outcome = Outcome(Status.FAILED)
    try:
        with signals_noted() as stop, RunProgress(run.path, config):
            outcome = run_chain(
                run, _backend(backend, stop, lock, ranks=identity.ranks), ranks=identity.ranks, warn=_warn
            )
        if outcome.status is Status.COMPLETED:
            task_of(config).report(run)
    finally:
        if run_id is not None:
            finish_run(run_id, config, run.path, status=_MLFLOW_STATUS[outcome.status])
    if outcome.status is Status.FAILED:
        raise WorkFailed(outcome.message)
    if outcome.status is Status.STOPPED:
        typer.echo(f"stopped; `longformer resume {run.path}` goes on from the last checkpoint", err=True)
        return EXIT_STOPPED
    return 0


def _backend(name: BackendName, stop: StopFlag, lock: int, *, ranks: int) -> Backend:
    if name == "slurm":
        return SlurmBackend(stop, nodes_of_this_job(ranks=ranks))
    return LocalBackend(stop, lock, _warn)


_MLFLOW_STATUS: dict[Status, Literal["FINISHED", "FAILED", "KILLED"]] = {
    Status.COMPLETED: "FINISHED",
    Status.STOPPED: "KILLED",
    Status.FAILED: "FAILED",
}


def _warn(message: str) -> None:
    typer.echo(f"warning: {message}", err=True)
