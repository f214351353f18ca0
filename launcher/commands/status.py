"""`longformer status` and `longformer logs`: how a run goes that another process or a cluster drives."""

import json
import os
import shlex
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import typer
from rich.console import Console

from launcher.reporting.progress import STEPS_AVERAGED, progress_snapshot
from launcher.reporting.sweep_summary import summarize_sweep, sweep_table
from launcher.reporting.terminal import terminal
from launcher.reporting.text import clock
from launcher.runs.compare import compare_runs
from launcher.runs.paths import MetricsFollower, RunPaths
from launcher.runs.run import Run
from launcher.runs.submission import Submission
from launcher.runs.sweep import runs_of
from longformer.errors import LongformerError

_SECONDS_BETWEEN_LOOKS = 0.5

RunPath = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run.")]


def status(
    run_directory: RunPath, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Say whether a run is waiting, starting, running, stopped or finished, and how far; of a sweep, every run."""
    run = RunPaths(run_directory)
    sweep = runs_of(run)
    found = [_status_in_sweep(task) | {"values": values} for task, values in sweep] or [run_status(run)]
    if as_json:
        print(json.dumps(found if sweep else found[0], indent=2))
        return
    for one in found:
        if sweep:
            print(f"{one['run']} ({one['values']})")
        _show(one)


def _show(found: dict[str, Any]) -> None:
    queued, at = found["queued"], found["standing"]
    print(found["state"] + (f": job {queued['job']}, {queued['state']} ({queued['reason']})" if queued else ""))
    if at:
        print(
            f"phase {at['phase_index'] + 1} of {at['phases']} ({at['phase']}), step {at['step']:,} of {at['steps']:,}: "
            f"loss {at['loss']:.3f}, {at['bits_short']} {at['bits']:.3f}, {at['tokens_per_second']:,.0f} tokens/s, "
            f"about {clock(at['seconds_left'])} of training left"
        )
    for rank in found["ranks"]:
        print(
            f"rank {rank['rank']} on {rank['host']} (process {rank['process']}): step {rank['step']:,}, in "
            f"{rank['place']}, {rank['silent_seconds']:.0f} s ago"
        )
    if found["state"] == "stopped":
        print(f"`longformer logs {shlex.quote(found['run'])}` shows its last words")


def logs(
    run_directory: RunPath,
    rank: Annotated[
        int | None, typer.Option(min=0, help="What this rank printed in all phases; else the driver's words.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """Show what a submitted run, or a rank of any run, has printed."""
    run = RunPaths(run_directory)
    if sweep := runs_of(run):
        raise LongformerError(f"{run.root} is a sweep; name one of its runs, {sweep[0][0].root} to {sweep[-1][0].root}")
    _check(run)
    shown: dict[Path, int] = {}
    while True:
        over = not follow or activity(run) is None  # asked first: the last words come after
        for path in _log_files(run, rank):
            with path.open("rb") as file:
                shown[path] = _copy(file, shown.get(path, 0))
        if over:
            break
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if not shown:
        raise LongformerError(_nothing_printed(run, rank))


def run_status(paths: RunPaths) -> dict[str, Any]:
    """Returns state, job and standing of a run, as `status --json` prints them.

    Raises:
        LongformerError: this is not the directory of a run or of a submitted one, or Slurm does not answer.
    """
    _check(paths)
    run = Run.open(paths.root) if paths.exists else None
    submission = Submission.of(paths)
    queued = submission.queued() if submission else None
    return {
        "run": str(paths.root),
        "state": _state(paths, run, submission, queued),
        "submission": submission and asdict(submission),
        "queued": queued and dict(zip(("job", "state", "reason"), queued, strict=True)),
        "standing": run and _snapshot(run),
        "ranks": paths.ranks() if paths.is_running() else [],
    }


def _status_in_sweep(paths: RunPaths) -> dict[str, Any]:
    """Returns the status of a run of a sweep, which may not have begun: on one machine they follow each other."""
    if paths.exists or Submission.of(paths) is not None:
        return run_status(paths)
    return {
        "run": str(paths.root),
        "state": "waiting",
        "submission": None,
        "queued": None,
        "standing": None,
        "ranks": [],
    }


Activity = Literal["waiting", "starting", "running"]
"""Starting: its process prepares data or imports what it needs, and nothing is trained yet."""


def activity(paths: RunPaths) -> Activity | None:
    """Returns whether a run waits in a queue, starts or is running; None where it does nothing."""
    submission = Submission.of(paths)
    return _activity(paths, submission, submission.queued() if submission else None)


def _activity(paths: RunPaths, submission: Submission | None, queued: tuple[str, str, str] | None) -> Activity | None:
    if paths.is_running() or (queued and queued[1] in ("RUNNING", "COMPLETING")):
        return "running"
    if submission and submission.is_starting(paths):
        return "starting"
    return "waiting" if queued else None


def _state(paths: RunPaths, run: Run | None, submission: Submission | None, queued: tuple[str, str, str] | None) -> str:
    is_finished = run is not None and len(run.finished_results()) == len(run.config.phases)
    return _activity(paths, submission, queued) or ("finished" if is_finished else "stopped")


def _check(run: RunPaths) -> None:
    if Submission.of(run) is None:
        run.identity()


def _snapshot(run: Run) -> dict[str, Any] | None:
    records = MetricsFollower(run.paths.metrics_file).new_records()
    if not records:
        return None
    config = run.config
    newest = records[-1]
    recent = [record for record in records[-STEPS_AVERAGED:] if record["phase_index"] == newest["phase_index"]]
    phase = config.phases[newest["phase_index"]]
    about = {"phase": phase.name, "phases": len(config.phases), "steps": phase.total_steps}
    about |= {"bits_short": config.words.bits_short}
    return asdict(progress_snapshot(recent, config)) | about


def _log_files(run: RunPaths, rank: int | None) -> list[Path]:
    if rank is None:
        return [run.job_log] if run.job_log.exists() else []
    return sorted((run.root / "logs").glob(f"phase-*-rank-{rank}.log"))


def _copy(file: BinaryIO, offset: int) -> int:
    """Prints a file from an offset on; returns where it ends now."""
    file.seek(offset)
    content = file.read()
    print(content.decode(errors="replace"), end="", flush=True)
    return offset + len(content)


def _nothing_printed(run: RunPaths, rank: int | None) -> str:
    if rank is not None:
        return f"rank {rank} of {run.root} has printed nothing"
    if Submission.of(run) is None:
        return (
            f"{run.root} was not submitted, so its driver's words are in the terminal; --rank 0 shows the first rank's"
        )
    return f"the job of {run.root} has printed nothing yet"


app = typer.Typer(no_args_is_help=True)


@app.callback()
def runs() -> None:
    """Look at several runs together."""


@app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run.")],
    second: Annotated[Path, typer.Argument(metavar="OTHER_RUN_DIR", help="Another run.")],
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest relative difference of losses that count as equal; 0 = bit for bit.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Tell at which step two runs part, and what was asked of them differently; exit code 1 where they part."""
    found = compare_runs(Run.open(first), Run.open(second), tolerance=tolerance)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        for line in found.settings:
            print(line)
        if found.parting is None:
            print(f"the {found.steps_compared:,} steps that both have agree")
        else:
            at = found.parting
            print(
                f"they part at step {at.global_step:,} (phase {at.phase}, step {at.step:,}): "
                f"loss {at.first_loss:.9g} and {at.second_loss:.9g}"
            )
        print(f"largest relative difference of losses: {found.largest_relative_difference:.3g}")
    return 0 if found.parting is None else 1


@app.command("summary")
def summary(
    sweep_directory: Annotated[Path, typer.Argument(metavar="SWEEP_DIR", help="Directory of a sweep.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show mean and standard deviation over the seeds of a sweep of what held-out data was scored by."""
    groups = summarize_sweep(RunPaths(sweep_directory))
    if as_json:
        print(json.dumps([asdict(group) for group in groups], indent=2))
    else:
        terminal().print(sweep_table(groups))


_SECONDS_BETWEEN_STATES = 0.2


def stop(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run that is going on.")],
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Write a checkpoint first, or lose the steps since the last one.")
    ] = True,
) -> None:
    """Stop a run at its next step border and wait until it has ended; `longformer resume` goes on with it.

    Of a sweep, every run is stopped.
    """
    run = RunPaths(run_directory)
    sweep = [task for task, _ in runs_of(run)]
    if sweep:
        for task in sweep:
            if activity(task) is not None:
                _stop(task, save=save)
        return
    _stop(run, save=save)


def _stop(run: RunPaths, *, save: bool) -> None:
    submission = Submission.of(run)
    if submission is None:
        run.identity()
    elif submission.is_starting(run):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(int(submission.jobs[0]), signal.SIGTERM)
        print("stopped before it began to train; `longformer submit` goes on with the run")
        return
    elif queued := submission.queued():
        job, *following = submission.jobs[submission.jobs.index(queued[0]) :]
        if run.is_running():
            submission.cancel(following)
        else:
            submission.cancel([job, *following])
            print(f"job {job} is taken out of the queue; `longformer submit` goes on with the run")
            return
    run.request_stop(save=save)
    with Console(stderr=True).status("waiting for the run to end"):
        while activity(run) == "running":  # the job too, so that the run can be submitted again
            time.sleep(_SECONDS_BETWEEN_STATES)
    print(f"stopped; `longformer resume {run.in_shell}` goes on from the last checkpoint")
