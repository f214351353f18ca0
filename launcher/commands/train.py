"""`longformer train` and `longformer resume`: prepare the data, run the phases, report; go on where it stopped."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, chdir, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from launcher.backends.local.backend import LocalBackend, warm_up
from launcher.backends.local.rank import EXIT_STOPPED
from launcher.backends.ray.backend import RayBackend, check_room
from launcher.backends.ray.cluster import RayCluster, connected
from launcher.backends.slurm.backend import SlurmBackend, nodes_of_this_job
from launcher.backends.torchrun import first_rank, follow, rank_and_ranks
from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.config.sections import BackendName, RankRange, parse_ranks_option
from launcher.reporting.progress import RunProgress
from launcher.reporting.run_report import report_run
from launcher.reporting.sweep_summary import summarize_sweep, sweep_table
from launcher.reporting.terminal import terminal
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.runs.sweep import check_continues, combinations, record_sweep, run_of
from launcher.tasks.data import InputData, TaskData
from launcher.tasks.registry import data_of, task_of_run
from launcher.tracking.callbacks import finish_run, start_run
from launcher.training.phases import Backend, Outcome, Status, is_done, run_chain
from launcher.training.signals import StopFlag, signals_noted
from launcher.training.start_model import bring_start_model
from longformer.errors import LongformerError, WorkFailed


def train(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as phases.0.steps=100.")
    ] = None,
    ranks: Annotated[
        str, typer.Option(help="Processes that train together; on a Ray cluster also a range: 2-4.")
    ] = "1",
    run_directory: Annotated[Path | None, typer.Option(help="Where the run lies; runs/NAME unless given.")] = None,
    backend: Annotated[
        BackendName,
        typer.Option(
            help="Where the ranks run: on this machine, all nodes of this Slurm job, a Ray cluster, "
            "or in the processes that torchrun has started."
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster, as HOST:PORT of its head, or local for one of this machine alone."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Start from models:/NAME@ALIAS or a folder; the same as init=MODEL."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,VALUE", help="A run per value, such as seed=1,2,3, one after the other."),
    ] = None,
) -> int:
    """Train a model phase by phase, as a run file says; the same command again goes on where it stopped."""
    if backend == "torchrun" and rank_and_ranks()[0] > 0:
        follow()
        return 0
    written_init = [] if init is None else [f"init={json.dumps(init)}"]
    values = [*(overrides or []), *written_init]
    config = load(run_file, values)
    paths = RunPaths((run_directory or Path("runs") / config.name).resolve())
    asked = parse_ranks_option(ranks)
    if not sweep:
        return _train(Run(paths, config), asked, backend, address)
    if backend != "local":
        raise LongformerError("--sweep trains on this machine; `longformer submit --sweep` makes jobs of Slurm's of it")
    return _train_sweep(paths, sweep, lambda own: load(run_file, [*values, *own]), asked)


def _train_sweep(
    sweep: RunPaths, axes: Sequence[str], config_with: Callable[[Sequence[str]], RunConfig], ranks: RankRange
) -> int:
    """Trains the runs of a sweep that are not done, one after the other; returns the exit code of the last."""
    tasks = combinations(axes)
    check_continues(sweep, tasks)
    name = config_with([]).name
    runs = [
        Run(run_of(sweep, index), config_with([*values, f"name={name}-{index}"])) for index, values in enumerate(tasks)
    ]
    record_sweep(sweep, tasks)
    for run, values in zip(runs, tasks, strict=True):
        typer.echo(f"{run.paths.root}: {' '.join(values)}")
        code = _train(run, ranks, "local", None)
        if code != 0:
            return code
    terminal().print(sweep_table(summarize_sweep(sweep)))
    return 0


def _train(run: Run, asked: RankRange, backend: BackendName, address: str | None) -> int:
    """Trains a run or goes on with it; returns the exit code."""
    config = run.config
    at_first = _ranks_at_first(config, asked, backend)
    typer.echo(f"run {config.name} in {run.paths.root}: making its data ready")
    if backend == "local" and not is_done(run):
        warm_up()  # first of all: a preparation would start the server of processes without what ranks import
    with connected(address) if backend == "ray" else nullcontext() as cluster:
        if cluster is not None:
            check_room(cluster, config, asked)
        to_prepare = data_of(config)
        data = (
            to_prepare.prepare()
            if cluster is None
            else cluster.call(_prepare_in, directory=Path.cwd(), data=to_prepare)
        )
        if not run.paths.exists:  # which else has all that it starts from
            for note in to_prepare.check():
                typer.echo(f"note: {note}", err=True)
        config = to_prepare.in_steps()
        run = Run(run.paths, config)
        with run.paths.locked() as lock:
            if run.paths.exists:
                before = Run.open(run.paths.root)
                run = before.continued_with(config, ranks=at_first, data_fingerprint=data.fingerprint)
            else:
                run.create(
                    ranks=at_first,
                    data_directory=data.directory,
                    data_fingerprint=data.fingerprint,
                    start_model=bring_start_model(run, data),
                )
            return _go_on(run, lock, backend, cluster, asked)


def resume(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of an interrupted run.")],
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Processes that train together; as many as before unless given.")
    ] = None,
    backend: Annotated[
        Literal["local", "slurm"], typer.Option(help="On this machine, or on all nodes of this Slurm job.")
    ] = "local",
) -> int:
    """Go on with an interrupted run from its newest good checkpoint, with as many processes as there are now."""
    paths = RunPaths(run_directory)
    identity = paths.identity()  # refuses what is not a run before a lock is made in it
    if backend == "slurm":
        nodes_of_this_job(ranks=ranks or identity.ranks)
    with paths.locked() as lock:
        run = Run.open(run_directory)
        if ranks is not None:
            run.config.check_ranks(ranks)
            run = run.continued_with(run.config, ranks=ranks, data_fingerprint=identity.data_fingerprint)
        return _go_on(run, lock, backend)


def _ranks_at_first(config: RunConfig, ranks: RankRange, backend: BackendName) -> int:
    """Returns how many ranks a run begins with where there is room for the highest number.

    Raises:
        LongformerError: no such number divides the batches; a range where there is no choice.
    """
    if backend == "ray":
        largest = [phase.possible_ranks(ranks)[-1] for phase in config.phases]  # of all phases, to check them now
        return largest[0]
    if backend == "torchrun":
        ranks = RankRange(*[rank_and_ranks()[1]] * 2)
    if ranks.min != ranks.max:
        raise LongformerError(f"--ranks {ranks}: only --backend ray can choose between numbers of ranks; give one")
    config.check_ranks(ranks.max)
    if backend == "slurm":
        nodes_of_this_job(ranks=ranks.max)
    return ranks.max


def _prepare_in(directory: Path, data: TaskData[Any]) -> InputData:
    """Makes the data ready on a machine of a cluster, where paths mean what they mean in the driver's `directory`."""
    with chdir(directory):
        return data.prepare()


def _go_on(
    run: Run,
    lock: int,
    backend: BackendName,
    cluster: RayCluster | None = None,
    ranks: RankRange | None = None,
) -> int:
    """Runs every phase that is not done, in the foreground; returns the exit code."""
    identity = run.paths.identity()
    if is_done(run):
        with _backend(backend, StopFlag(), lock, ranks=identity.ranks):  # ranks of torchrun's must not be left waiting
            report_run(run, task_of_run(run))
        if identity.mlflow_status != "FINISHED":
            finish_run(run, status="FINISHED")
        return 0
    if backend == "local":
        warm_up()
    start_run(run)
    outcome = Outcome(Status.FAILED)
    try:
        with signals_noted() as stop, RunProgress(run, stop):
            if cluster is not None and ranks is not None:
                on_ray = RayBackend(cluster, run, ranks, stop, _warn)
                outcome = run_chain(run, on_ray, ranks=on_ray.ranks_now, warn=_warn)
            else:
                with _backend(backend, stop, lock, ranks=identity.ranks) as chosen:
                    outcome = run_chain(run, chosen, ranks=identity.ranks, warn=_warn)
        if outcome.status is Status.COMPLETED:
            report_run(run, task_of_run(run))
    finally:
        finish_run(run, status=_MLFLOW_STATUS[outcome.status])
    if outcome.status is Status.FAILED:
        raise WorkFailed(outcome.message)
    if outcome.status is Status.LOST:
        _warn(outcome.message)
        return EXIT_STOPPED
    if outcome.status is Status.STOPPED:
        again = f"`longformer resume {run.paths.in_shell}`" if backend in ("local", "slurm") else "the same command"
        typer.echo(f"stopped; {again} goes on from the last checkpoint", err=True)
        return 0 if backend == "torchrun" else EXIT_STOPPED  # after any other code torchrun starts the ranks again
    return 0


def _backend(name: BackendName, stop: StopFlag, lock: int, *, ranks: int) -> AbstractContextManager[Backend]:
    if name == "torchrun":
        return first_rank(stop)
    if name == "slurm":
        return nullcontext(SlurmBackend(stop, nodes_of_this_job(ranks=ranks)))
    return nullcontext(LocalBackend(stop, lock, _warn))


_MLFLOW_STATUS: dict[Status, Literal["FINISHED", "FAILED", "KILLED"]] = {
    Status.COMPLETED: "FINISHED",
    Status.STOPPED: "KILLED",
    Status.LOST: "KILLED",
    Status.FAILED: "FAILED",
}


def _warn(message: str) -> None:
    typer.echo(f"warning: {message}", err=True)
