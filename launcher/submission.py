"""What is kept of a submitted run: its run file, the code it runs with, and which job it is."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from launcher import slurm
from launcher.phases import BackendName
from launcher.run_directory import RunDirectory
from longformer.errors import LongformerError
from longformer.files import write_json

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("launcher", "longformer", "data_pipeline")


@dataclass(frozen=True)
class Submission:
    """The latest job of a run; submission/job.json."""

    backend: BackendName
    job: int
    """Slurm's number of the job, or the process of a local one."""
    version: str
    commit: str | None
    """Git commit of the code, None where it does not lie in a repository; the copy is what runs."""
    changed: bool
    """Whether the code differs from the commit."""

    @classmethod
    def of(cls, run: RunDirectory) -> "Submission | None":
        """Return the latest submission of a run, None where it was never submitted."""
        try:
            return cls(**json.loads((run.submission_directory / "job.json").read_text()))
        except FileNotFoundError:
            return None

    @classmethod
    def record(cls, run: RunDirectory, backend: BackendName, job: int) -> None:
        """Write down which job a run is now."""
        commit = _git("rev-parse", "HEAD")
        changed = bool(commit and _git("status", "--porcelain", "--", *_PACKAGES))
        submission = cls(backend, job, version("longformer-train"), commit, changed)
        write_json(run.submission_directory / "job.json", asdict(submission))

    def state(self) -> tuple[str, str] | None:
        """Return a Slurm job's state in the queue and the reason, None when it has left the queue or is a local one."""
        return slurm.job_state(self.job) if self.backend == "slurm" else None


def code_directory(run: RunDirectory) -> Path:
    """Return where the copy of the code lies."""
    return run.submission_directory / "code"


def copy_code(run: RunDirectory) -> None:
    """Copy the packages that this process runs into the run directory."""
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


def code_version(run: RunDirectory) -> CodeVersion:
    """Return the version of the code that this process works on a run with."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\n".encode() + path.read_bytes())
    submission = Submission.of(run)
    is_copy = submission is not None and _ROOT.resolve() == code_directory(run).resolve()
    return CodeVersion(digest.hexdigest(), submission.commit if submission and is_copy else _git("rev-parse", "HEAD"))


def check_free(run: RunDirectory) -> None:
    """Raise LongformerError where a run goes on already or waits in a queue."""
    submission = Submission.of(run)
    state = submission and submission.state()
    if submission and state:
        raise LongformerError(
            f"{run.path} has job {submission.job} in Slurm's queue ({state[0]}); `longformer stop {run.path}` ends it"
        )
    if run.is_running():
        raise LongformerError(f"a run is going on in {run.path}; `longformer stop {run.path}` ends it")


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
