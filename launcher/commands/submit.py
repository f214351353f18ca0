"""`longformer submit`: hand a run to Slurm's queue, to a Ray cluster, or to a process of its own on this machine."""

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from launcher.backends.ray import jobs as ray_jobs
from launcher.backends.slurm.batch_script import JobRequest, batch_script
from launcher.backends.slurm.commands import check_slurm, nodes_of, submit_job
from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.config.sections import RankRange, parse_ranks_option
from launcher.runs.paths import RunPaths
from launcher.runs.submission import Submission, check_free, code_directory, copy_code
from launcher.runs.sweep import check_continues, combinations, record_sweep, run_of
from launcher.tasks.registry import data_of
from longformer.errors import LongformerError
from longformer.files import write_atomically


def submit(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as phases.0.steps=100.")
    ] = None,
    backend: Annotated[
        Literal["local", "slurm", "ray"],
        typer.Option(help="Slurm's queue, a running Ray cluster, or a process on this machine."),
    ] = "slurm",
    address: Annotated[
        str | None, typer.Option(help="With --backend ray: its dashboard, such as http://HOST:8265.")
    ] = None,
    ranks: Annotated[str, typer.Option(help="With --backend ray or local: as for `longformer train`.")] = "1",
    nodes: Annotated[str, typer.Option(help="Nodes; or a range, such as 2-4.")] = "1",
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
    chain: Annotated[
        int, typer.Option(min=1, help="Jobs that carry on the run one after the other, where none may requeue itself.")
    ] = 1,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,VALUE", help="A run per value, such as seed=0,1,2, or per combination."),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Run the ranks on a Ray cluster inside the job.")] = False,
    module: Annotated[list[str] | None, typer.Option(help="Environment module that the job loads.")] = None,
    container: Annotated[str | None, typer.Option(help="Image for Apptainer to work in; with --ray.")] = None,
    pyxis: Annotated[bool, typer.Option("--pyxis", help="The image is for Slurm's plugin Pyxis.")] = False,
    run_directory: Annotated[Path | None, typer.Option(help="Where the run lies; runs/NAME unless given.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the batch script, or the command of the other backends.")
    ] = False,
) -> None:
    """Submit a run as a job that goes on by itself until the run is done; the same command again resumes it."""
    tasks = combinations(sweep or [])
    config = load(run_file, overrides or [])
    request = JobRequest(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        ranks_per_node=ranks_per_node or max(1, gpus_per_node),
        time=time,
        partition=partition,
        checkpoint_seconds=checkpoint_seconds,
        options=tuple(sbatch or ()),
        modules=tuple(module or ()),
        ray=ray,
        container=container,
        pyxis=pyxis,
        chain=chain,
        tasks=len(tasks) if sweep else None,
    )
    submitted = RunPaths((run_directory or Path("runs") / config.name).resolve())
    runs = {submitted: config}
    if sweep:
        runs = {
            run_of(submitted, index): load(run_file, [*(overrides or []), *values, f"name={config.name}-{index}"])
            for index, values in enumerate(tasks)
        }
    if backend == "slurm":
        if not dry_run:
            check_slurm()
        for one in runs.values():
            for possible in request.possible_ranks():
                one.check_ranks(possible)
        request = _with_defaults(request, list(runs.values()))
        handed_over = batch_script(
            request,
            name=config.name,
            run_directory=submitted.root,
            code=code_directory(submitted),
            data=config.data.directory.resolve(),
        )
    else:
        if sweep or chain > 1:
            raise LongformerError("--sweep and --chain are for --backend slurm")
        asked = parse_ranks_option(str(ranks_per_node) if backend == "local" and ranks_per_node else ranks)
        for phase in config.phases:
            phase.possible_ranks(asked)
        if backend == "ray":
            address = ray_jobs.check_address(address)
            handed_over = _ray_command(submitted, asked)
        elif asked.min != asked.max:
            raise LongformerError(f"--ranks {asked}: only --backend ray can choose between numbers of ranks; give one")
        else:
            handed_over = _local_command(submitted, asked)
    if dry_run:
        print(handed_over.rstrip())
        return
    for note in dict.fromkeys(note for one in runs.values() for note in data_of(one).check()):
        typer.echo(f"note: {note}", err=True)
    if sweep:
        check_continues(submitted, tasks)
    for run, one in runs.items():
        check_free(run)
        for directory in (run.submission_directory, run.job_log.parent):
            directory.mkdir(parents=True, exist_ok=True)
        write_atomically(run.submission_directory / "run.yaml", one.to_yaml().encode())
    copy_code(submitted)
    if backend == "slurm":
        jobs = _hand_to_slurm(submitted, handed_over, chain)
    elif address is not None:
        jobs = [ray_jobs.submit_job(address, handed_over, name=config.name)]
    else:
        jobs = [_start_here(handed_over)]
    if sweep:
        record_sweep(submitted, tasks)
    for index, run in enumerate(runs):
        Submission.record(run, backend, [f"{jobs[0]}_{index}"] if sweep else jobs)
    print(
        f"{'process' if backend == 'local' else 'job'} {', '.join(jobs)}; `longformer status {submitted.in_shell}` and "
        f"`longformer logs {next(iter(runs)).in_shell} --follow` tell how it goes"
    )


def _hand_to_slurm(submitted: RunPaths, script: str, chain: int) -> list[str]:
    """Submits the script, as often as the chain is long; returns the jobs' numbers."""
    script_file = submitted.submission_directory / "run.sbatch"
    write_atomically(script_file, script.encode())
    jobs: list[str] = []
    for _ in range(chain):
        jobs.append(submit_job(script_file, unless=jobs))
    return jobs


def _with_defaults(request: JobRequest, configs: list[RunConfig]) -> JobRequest:
    """Returns the request with processors and memory for the neediest of the runs; prints notes on both."""
    from launcher.backends.slurm.defaults import job_defaults  # brings torch
    from launcher.planning.node_needs import node_needs

    ranks, on_gpu = request.possible_ranks()[0], request.gpus_per_node > 0
    needs = [node_needs(config, ranks=ranks, ranks_of_node=request.ranks_per_node, on_gpu=on_gpu) for config in configs]
    neediest = max(needs, key=lambda each: (each.memory or 0, each.processors))
    found = job_defaults(request, neediest, nodes_of(request.partition))
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    return dataclasses.replace(request, options=request.options + found.options)


def _ray_command(run: RunPaths, ranks: RankRange) -> str:
    """Returns what the head of a Ray cluster does, for its shell."""
    settings = [f"{name}={value}" for name, value in _environment(run).items()]
    command = shlex.join(["env", *settings, *_driver(run), "--backend", "ray", "--ranks", str(ranks)])
    return f"cd {shlex.quote(str(Path.cwd()))} && exec {command} >>{shlex.quote(str(run.job_log))} 2>&1"


def _local_command(run: RunPaths, ranks: RankRange) -> str:
    """Returns what a process of its own on this machine does, for a shell."""
    settings = [f"{name}={value}" for name, value in _environment(run).items()]
    command = shlex.join(["env", *settings, *_driver(run), "--ranks", str(ranks)])
    return f"exec {command} </dev/null >>{shlex.quote(str(run.job_log))} 2>&1"


def _start_here(command: str) -> str:
    """Lets a shell become a driver that outlives this command; returns its process number."""
    return str(subprocess.Popen(["sh", "-c", command], start_new_session=True).pid)


def _driver(run: RunPaths) -> list[str]:
    run_file = run.submission_directory / "run.yaml"
    return [sys.executable, "-m", "launcher.cli", "train", str(run_file), "--run-directory", str(run.root)]


def _environment(run: RunPaths) -> dict[str, str]:
    """Returns what makes a driver run the submitted code."""
    return {"PYTHONPATH": str(code_directory(run)), "PYTHONSAFEPATH": "1"}
