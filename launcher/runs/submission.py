"""What is kept of a submitted run: its run file, the code it runs with, and which job it is."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil

from launcher.backends.ray import jobs as ray_jobs
from launcher.backends.slurm import commands as slurm_commands
from launcher.config.sections import BackendName
from launcher.runs.paths import RunPaths
from longformer.errors import LongformerError
from longformer.files import write_json

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("launcher", "longformer", "data_pipeline")


@dataclass(frozen=True)
class Submission:
    """The latest job of a run, or the latest chain of jobs; submission/job.json."""

    backend: BackendName
    jobs: tuple[str, ...]
    """Slurm's numbers of the jobs, in the order in which they carry on the run, the URL of a job on a Ray cluster, or
    the process of a local one."""
    version: str
    commit: str | None
    """Git commit of the code, None where it does not lie in a repository; the copy is what runs."""
    changed: bool
    """Whether the code differs from the commit."""

    @classmethod
    def of(cls, run: RunPaths) -> "Submission | None":
        """Returns the latest submission of a run, None where it was never submitted."""
        try:
            content = json.loads((run.submission_directory / "job.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(**content | {"jobs": tuple(content["jobs"])})

    @classmethod
    def record(cls, run: RunPaths, backend: BackendName, jobs: Sequence[str]) -> None:
        """Writes down which jobs a run is now."""
        commit = _git("rev-parse", "HEAD")
        changed = bool(commit and _git("status", "--porcelain", "--", *_PACKAGES))
        submission = cls(backend, tuple(jobs), version("longformer-train"), commit, changed)
        write_json(run.submission_directory / "job.json", asdict(submission))

    def queued(self) -> tuple[str, str, str] | None:
        """Returns number, state and reason of the job that goes on or will start next, None where there is none."""
        if self.backend == "ray":
            return ray_jobs.queued_job(self.jobs)
        return slurm_commands.queued_job(self.jobs) if self.backend == "slurm" else None

    def is_starting(self, run: RunPaths) -> bool:
        """Returns whether the run's own process lives on this machine and has not taken the run directory yet."""
        if self.backend != "local" or run.latest_owner() == int(self.jobs[0]):
            return False
        try:
            return str(run.root.resolve()) in " ".join(psutil.Process(int(self.jobs[0])).cmdline())
        except psutil.Error:  # it has ended
            return False

    def cancel(self, jobs: Sequence[str]) -> None:
        """Takes jobs out of the queue, or end them at once; those that are over stay as they are."""
        (ray_jobs.stop_jobs if self.backend == "ray" else slurm_commands.cancel_jobs)(jobs)


def code_directory(run: RunPaths) -> Path:
    """Returns where the copy of the code lies."""
    return run.submission_directory / "code"


def copy_code(run: RunPaths) -> None:
    """Copies the packages that this process runs into the run directory."""
    for package in _PACKAGES:
        target = code_directory(run) / package
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(_ROOT / package, target, ignore=shutil.ignore_patterns("__pycache__"))


class CodeVersion(NamedTuple):
    """The code that a process runs."""

    fingerprint: str
    """SHA-256 (hex) of the Python files of all packages."""
    commit: str | None
    """Git commit, None where the code does not lie in a repository."""


def code_version(run: RunPaths) -> CodeVersion:
    """Returns the version of the code that this process works on a run with."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\n".encode() + path.read_bytes())
    submission = Submission.of(run)
    is_copy = submission is not None and _ROOT.resolve() == code_directory(run).resolve()
    return CodeVersion(digest.hexdigest(), submission.commit if submission and is_copy else _git("rev-parse", "HEAD"))


def check_free(run: RunPaths) -> None:
    """Raises LongformerError where a run goes on already or waits in a queue."""
    submission = Submission.of(run)
    if submission and (queued := submission.queued()):
        job, state, _ = queued
        where = "on its Ray cluster" if submission.backend == "ray" else "in Slurm's queue"
        raise LongformerError(f"{run.root} has job {job} {where} ({state}); `longformer stop {run.in_shell}` ends it")
    if run.is_running() or (submission and submission.is_starting(run)):
        raise LongformerError(f"a run is going on in {run.root}; `longformer stop {run.in_shell}` ends it")


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
