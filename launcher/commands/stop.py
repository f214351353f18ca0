"""`longformer stop`: end a run that another process drives."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.commands.status import run_state
from launcher.run_directory import RunDirectory
from launcher.submission import Submission
from launcher.sweep import runs_of

_SECONDS_BETWEEN_LOOKS = 0.2


def stop(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run that is going on.")],
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Write a checkpoint first, or lose the steps since the last one.")
    ] = True,
) -> None:
    """Stop a run at its next step border and wait until it has ended; `longformer resume` goes on with it.

    Of a sweep, every run is stopped.
    """
    run = RunDirectory(run_directory)
    sweep = [task for task, _ in runs_of(run)]
    if sweep:
        for task in sweep:
            if run_state(task) in ("waiting", "running"):
                _stop(task, save=save)
        return
    _stop(run, save=save)


def _stop(run: RunDirectory, *, save: bool) -> None:
    submission = Submission.of(run)
    if submission is None:
        run.identity()
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
        while run_state(run) == "running":  # the job too, so that the run can be submitted again
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    print(f"stopped; `longformer resume {run.path}` goes on from the last checkpoint")
