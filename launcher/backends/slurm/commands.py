"""Slurm's commands: the only place that calls sbatch, squeue, sinfo and scancel."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longformer.errors import LongformerError

_REMEDIES = {
    "partition name": "choose another --partition",
    "account": "name yours with --sbatch account=NAME, `sacctmgr show associations user=$USER` lists them",
    "generic resource": "lower --gpus-per-node",
    "time limit": "lower --time",
    "Node count": "lower --nodes",
    "processors": "lower --sbatch cpus-per-task",
}
"""What to do about a refusal in which Slurm uses these words."""


@dataclass(frozen=True)
class NodeKind:
    """Nodes of a partition that are alike."""

    processors: int
    memory: int
    """Bytes."""
    gpus: int
    time_limit: str
    """Of a job that names none."""


def nodes_of(partition: str | None) -> list[NodeKind]:
    """Returns the kinds of nodes of a partition, of the default one for None; none where Slurm cannot be asked."""
    if shutil.which("sinfo") is None:
        return []
    named = [f"--partition={partition}"] if partition else []
    answer = _slurm("sinfo", "--noheader", "--exact", *named, "--format=%P|%c|%m|%G|%L|%l")
    kinds = []
    for line in answer.stdout.splitlines() if answer.returncode == 0 else ():
        name, processors, memory, resources, default, limit = line.split("|")
        if partition or name.endswith("*"):
            gpus = sum(int(count) for count in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", resources))
            time_limit = limit if default == "n/a" else default
            kinds.append(NodeKind(int(processors), int(memory) * 2**20, gpus, time_limit))
    return kinds


def check_slurm() -> None:
    """Raises LongformerError where Slurm's commands are not there."""
    if shutil.which("sbatch") is None:
        raise LongformerError("sbatch was not found: work on a machine of the Slurm cluster, or use --backend local")


def submit_job(script: Path, *, unless: Sequence[str] = ()) -> str:
    """Gives a batch script to Slurm and returns the number of the job.

    Args:
        script: the batch script.
        unless: jobs that come first; the new one is only carried out if none of them ends well.

    Raises:
        LongformerError: Slurm does not take it, or is not there; the message is Slurm's, with a remedy.
    """
    chain = [f"--dependency=afternotok:{':'.join(unless)}", "--kill-on-invalid-dep=yes"] if unless else []
    answer = _slurm("sbatch", "--parsable", *chain, str(script))
    if answer.returncode == 0:
        return answer.stdout.strip().partition(";")[0]
    reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
    reason = reason.removeprefix("sbatch: ").removeprefix("error: ").removeprefix("Batch job submission failed: ")
    remedy = next((f"{remedy}; " for words, remedy in _REMEDIES.items() if words in reason), "")
    sinfo = _slurm("sinfo", "--noheader", "--format=%R (%D nodes of %c processors, GPUs: %G, at most %l)")
    offered = ", ".join(sinfo.stdout.replace("(null)", "none").splitlines())
    raise LongformerError(f"Slurm refuses the job: {reason}; {remedy}it offers: {offered}")


def queued_job(jobs: Sequence[str]) -> tuple[str, str, str] | None:
    """Returns the first of some jobs that is not over: its number, state and the reason for it, as squeue says them.

    A task of an array is numbered 12_3.

    Raises:
        LongformerError: Slurm is not there or does not answer.
    """
    for job in jobs:
        answer = _slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T|%R")
        if answer.returncode != 0 and "Invalid job id" not in answer.stderr:
            raise LongformerError(f"Slurm does not answer ({answer.stderr.strip()}); try again")
        state, _, reason = answer.stdout.strip().partition("|")
        if state:
            return job, state, reason
    return None


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Takes jobs out of the queue; those that are over stay as they are."""
    if jobs:
        _slurm("scancel", *jobs)


def _slurm(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    check_slurm()
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
