"""Slurm's commands, and the batch script of a run: the only place that calls sbatch, squeue and scancel."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from longformer.errors import LongformerError

TEMPLATE = Path(__file__).parent.parent / "slurm" / "run.sbatch"
_NODES = re.compile(r"[1-9]\d*(-[1-9]\d*)?")
_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")
_WORDS = re.compile(r"[\w.,-]+")
_OPTION = re.compile(r"[a-z][a-z-]*(=[\w.,:/+*@=\[\]-]+)?")
_PATH = re.compile(r"[\w./+@:=-]+")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a run asks of Slurm.

    Raises:
        LongformerError: a value is not of the form that Slurm knows.
    """

    nodes: str
    """A number, or the fewest and the most: 2-4. A requeued job takes what it can get between them."""
    gpus_per_node: int
    ranks_per_node: int
    time: str | None
    """Time limit as Slurm writes it: minutes, 2:30:00, 1-12."""
    partition: str | None
    checkpoint_seconds: int
    """How long before the time limit the run is asked to write a checkpoint."""
    options: tuple[str, ...] = ()
    """More sbatch options without their dashes: account=physics."""

    def __post_init__(self) -> None:
        _check("--nodes", self.nodes, _NODES, "a number such as 2, or the fewest and the most such as 2-4")
        if self.time is not None:
            _check(
                "--time", self.time, _TIME, "minutes, hours:minutes:seconds or days-hours, such as 90, 12:00:00 or 2-12"
            )
        if self.partition is not None:
            _check("--partition", self.partition, _WORDS, "the name of a partition; `sinfo` lists them")
        for option in self.options:
            _check("--sbatch", option, _OPTION, "an option of sbatch without its dashes, such as account=physics")
        fewest, most = self.node_range()
        if fewest > most:
            raise LongformerError(f"--nodes {self.nodes}: the fewest come first, such as {most}-{fewest}")
        if 0 < self.gpus_per_node < self.ranks_per_node:
            raise LongformerError(
                f"--ranks-per-node {self.ranks_per_node} is more than --gpus-per-node {self.gpus_per_node}: "
                "each rank needs a GPU of its own"
            )

    def node_range(self) -> tuple[int, int]:
        """Return the fewest and the most nodes."""
        fewest, _, most = self.nodes.partition("-")
        return int(fewest), int(most or fewest)

    def possible_ranks(self) -> list[int]:
        """Return every number of ranks that the job may start with."""
        fewest, most = self.node_range()
        return [nodes * self.ranks_per_node for nodes in range(fewest, most + 1)]


def batch_script(request: JobRequest, *, name: str, run_directory: Path, run_file: Path, code: Path, log: Path) -> str:
    """Return the batch script of a run; nothing in it is read by the shell as anything but a word.

    Args:
        request: what is asked of Slurm.
        name: of the run and the job.
        run_directory: where the run lies; on storage that all nodes share, as are the other paths.
        run_file: the resolved run file.
        code: directory with the packages to run.
        log: where the job's output goes.

    Raises:
        LongformerError: a path holds characters that sbatch would read otherwise.
    """
    for path in (run_directory, Path.cwd(), Path(sys.executable)):
        if not _PATH.fullmatch(str(path)):
            raise LongformerError(
                f"{path} cannot be written into a batch script; use a path of letters, digits and ./_-+@:="
            )
    options = {
        "time": request.time,
        "partition": request.partition,
        "gpus-per-node": request.gpus_per_node or None,
    }
    written = [f"{option}={value}" for option, value in options.items() if value is not None] + list(request.options)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=shlex.quote(name),
        nodes=request.nodes,
        options="\n".join(f"#SBATCH --{option}" for option in written),
        working_directory=Path.cwd(),
        log=log,
        checkpoint_seconds=request.checkpoint_seconds,
        code=shlex.quote(str(code)),
        python=shlex.quote(sys.executable),
        run_file=shlex.quote(str(run_file)),
        run_directory=shlex.quote(str(run_directory)),
        ranks_per_node=request.ranks_per_node,
    )


def check_slurm() -> None:
    """Raise LongformerError where Slurm's commands are not there."""
    if shutil.which("sbatch") is None:
        raise LongformerError("sbatch was not found: work on a machine of the Slurm cluster, or use --backend local")


def submit_job(script: Path) -> int:
    """Give a batch script to Slurm and return the number of the job.

    Raises:
        LongformerError: Slurm does not take it, or is not there; the message is Slurm's, with a remedy.
    """
    answer = _slurm("sbatch", "--parsable", str(script))
    if answer.returncode == 0:
        return int(answer.stdout.strip().partition(";")[0])
    reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
    reason = reason.removeprefix("sbatch: ").removeprefix("error: ").removeprefix("Batch job submission failed: ")
    offered = _slurm("sinfo", "--noheader", "--format=%R (%D nodes of %c processors, GPUs %G, at most %l)").stdout
    raise LongformerError(f"Slurm refuses the job: {reason}; it offers: {', '.join(offered.split(chr(10))[:-1])}")


def job_state(job: int) -> tuple[str, str] | None:
    """Return the state of a job and the reason for it, as squeue says them (PENDING, Resources); None once it is over.

    Raises:
        LongformerError: Slurm is not there or does not answer.
    """
    answer = _slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T|%R")
    if answer.returncode != 0 and "Invalid job id" not in answer.stderr:
        raise LongformerError(f"Slurm does not answer ({answer.stderr.strip()}); try again")
    state, _, reason = answer.stdout.strip().partition("|")
    return (state, reason) if state else None


def cancel_job(job: int) -> None:
    """Take a job out of the queue."""
    _slurm("scancel", str(job))


def _slurm(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    check_slurm()
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)


def _check(option: str, value: str, form: re.Pattern[str], description: str) -> None:
    if not form.fullmatch(value):
        raise LongformerError(f"{option} {value!r} is not {description}")
