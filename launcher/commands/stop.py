"""`longformer stop`: end a run that another process drives."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.run_directory import RunDirectory
from launcher.slurm import cancel_job
from launcher.submission import Submission


def stop(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run that is going on.")],
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Write a checkpoint first, or lose the steps since the last one.")
    ] = True,
) -> None:
    """Stop a run at its next step border and wait until it has ended; `longformer resume` goes on with it."""
    run = RunDirectory(run_directory)
    submission = Submission.of(run)
    if submission is None:
        run.identity()
    elif not run.is_running() and submission.state():
        cancel_job(submission.job)
        print(f"job {submission.job} is taken out of the queue; `longformer submit` goes on with the run")
        return
    run.request_stop(save=save)
    with Console(stderr=True).status("waiting for the run to end"):
        while run.is_running():
            time.sleep(0.1)
    print(f"stopped; `longformer resume {run.path}` goes on from the last checkpoint")
