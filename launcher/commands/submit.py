"""`longformer submit`: hand a run to Slurm's queue, or to a process of its own on this machine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from launcher.phases import BackendName
from launcher.run_directory import RunDirectory
from launcher.run_file import RunConfig
from launcher.slurm import JobRequest, batch_script, check_slurm, submit_job
from launcher.submission import Submission, check_free, code_directory, copy_code
from launcher.tasks.kinds import task_of
from longformer.files import write_atomically


def submit(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as phases.0.steps=100.")
    ] = None,
    backend: Annotated[BackendName, typer.Option(help="Slurm's queue, or a process on this machine.")] = "slurm",
    nodes: Annotated[str, typer.Option(help="Nodes; or the fewest and the most, such as 2-4.")] = "1",
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each node; 0 trains on processors.")] = 0,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Processes of each node that train together; one per GPU unless given.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="Time limit of the job, such as 12:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(help="Partition of the cluster.")] = None,
    checkpoint_seconds: Annotated[
        int, typer.Option(min=1, help="How long before the time limit the run is asked to write a checkpoint.")
    ] = 120,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Another option of sbatch without its dashes, such as account=physics.")
    ] = None,
    run_directory: Annotated[Path | None, typer.Option(help="Where the run lies; runs/NAME unless given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the batch script.")] = False,
) -> None:
    """Submit a run as a job that goes on by itself until the run is done; the same command again resumes it."""
    config = RunConfig.load(run_file, overrides or [])
    request = JobRequest(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        ranks_per_node=ranks_per_node or max(1, gpus_per_node),
        time=time,
        partition=partition,
        checkpoint_seconds=checkpoint_seconds,
        options=tuple(sbatch or ()),
    )
    for ranks in request.possible_ranks():
        config.check_ranks(ranks)
    run = RunDirectory((run_directory or Path("runs") / config.name).resolve())
    submitted_file = run.submission_directory / "run.yaml"
    script = batch_script(
        request,
        name=config.name,
        run_directory=run.path,
        run_file=submitted_file,
        code=code_directory(run),
        log=run.job_log,
    )
    if dry_run:
        print(script, end="")
        return
    if backend == "slurm":
        check_slurm()
    for note in task_of(config).check():
        typer.echo(f"note: {note}", err=True)
    check_free(run)
    for directory in (run.submission_directory, run.job_log.parent):
        directory.mkdir(parents=True, exist_ok=True)
    copy_code(run)
    write_atomically(submitted_file, config.to_yaml().encode())
    if backend == "slurm":
        script_file = run.submission_directory / "run.sbatch"
        write_atomically(script_file, script.encode())
        job = submit_job(script_file)
    else:
        job = _start_here(run, submitted_file, ranks=request.ranks_per_node)
    Submission.record(run, backend, job)
    kind = "job" if backend == "slurm" else "process"
    print(f"{kind} {job}; `longformer status {run.path}` and `longformer logs {run.path} --follow` tell how it goes")


def _start_here(run: RunDirectory, run_file: Path, *, ranks: int) -> int:
    """Start a driver that outlives this command; return its process number."""
    command = [sys.executable, "-m", "launcher.cli", "train", str(run_file)]
    command += ["--run-directory", str(run.path), "--ranks", str(ranks)]
    environment = os.environ | {"PYTHONPATH": str(code_directory(run)), "PYTHONSAFEPATH": "1"}
    with run.job_log.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        ).pid
