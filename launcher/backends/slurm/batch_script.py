"""The batch script of a run: what is asked of Slurm, and the readable script that asks for it."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from longformer.errors import LongformerError

TEMPLATES = Path(__file__).parents[3] / "slurm"
_NODES = re.compile(r"[1-9]\d*(-[1-9]\d*)?")
_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")
_SECONDS_TO_START = 60
"""What a job has at least before it is asked for its checkpoint: else it might go back into the queue for ever."""
_WORDS = re.compile(r"[\w.,-]+")
_OPTION = re.compile(r"[a-z][a-z-]*(=[\w.,:/+*@=\[\]-]+)?")
_MODULE = re.compile(r"[\w./+-]+")
_IMAGE = re.compile(r"[\w./+@:#=-]+")
_PATH = re.compile(r"[\w./+@:=-]+")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a run asks of Slurm.

    Raises:
        LongformerError: a value is not of the form that Slurm knows, or two of them exclude each other.
    """

    nodes: str
    """A number, or a range: 2-4. A requeued job takes what it can get between them."""
    gpus_per_node: int
    ranks_per_node: int
    time: str | None
    """Time limit as Slurm writes it: minutes, 2:30:00, 1-12."""
    partition: str | None
    checkpoint_seconds: int
    """How long before the time limit the run is asked to write a checkpoint."""
    options: tuple[str, ...] = ()
    """More sbatch options without their dashes: account=physics."""
    modules: tuple[str, ...] = ()
    """Environment modules that the job loads."""
    ray: bool = False
    """Whether the ranks run on a Ray cluster inside the job; else srun starts them."""
    container: str | None = None
    """Image for Apptainer or Pyxis that everything runs in."""
    pyxis: bool = False
    chain: int = 1
    """How many jobs carry on the run one after the other; with one, it goes back into the queue instead."""
    tasks: int | None = None
    """How many runs the job array of a sweep has; None for a single run."""

    def __post_init__(self) -> None:
        _check("--nodes", self.nodes, _NODES, "a number such as 2, or a range such as 2-4")
        if self.time is not None:
            _check(
                "--time", self.time, _TIME, "minutes, hours:minutes:seconds or days-hours, such as 90, 12:00:00 or 2-12"
            )
            limit = seconds_of(self.time)
            if 0 < limit < self.checkpoint_seconds + _SECONDS_TO_START:
                raise LongformerError(
                    f"--time {self.time} leaves less than {_SECONDS_TO_START} seconds until the checkpoint that is due "
                    f"{self.checkpoint_seconds} seconds before it; give more time, or a lower --checkpoint-seconds"
                )
        if self.partition is not None:
            _check("--partition", self.partition, _WORDS, "the name of a partition; `sinfo` lists them")
        for option in self.options:
            _check("--sbatch", option, _OPTION, "an option of sbatch without its dashes, such as account=physics")
        for module in self.modules:
            _check("--module", module, _MODULE, "the name of a module; `module avail` lists them")
        lowest, highest = self.node_range()
        if lowest > highest:
            raise LongformerError(f"--nodes {self.nodes}: the lower number comes first, such as {highest}-{lowest}")
        if 0 < self.gpus_per_node < self.ranks_per_node:
            raise LongformerError(
                f"--ranks-per-node {self.ranks_per_node} is more than --gpus-per-node {self.gpus_per_node}: "
                "each rank needs a GPU of its own"
            )
        if self.container is not None:
            _check(
                "--container", self.container, _IMAGE, "an image, such as longformer.sif or docker://site/longformer"
            )
            if not self.ray:
                raise LongformerError(
                    "--container needs --ray: without Ray the driver calls srun, which images do not contain"
                )
        elif self.pyxis:
            raise LongformerError("--pyxis says how --container is run; name an image with --container")
        if self.chain > 1 and self.tasks is not None:
            raise LongformerError("--chain and --sweep exclude each other; the jobs of a sweep requeue themselves")

    def node_range(self) -> tuple[int, int]:
        """Returns the lowest and the highest number of nodes."""
        lowest, _, highest = self.nodes.partition("-")
        return int(lowest), int(highest or lowest)

    def possible_ranks(self) -> list[int]:
        """Returns every number of ranks that the job may start with."""
        lowest, highest = self.node_range()
        return [nodes * self.ranks_per_node for nodes in range(lowest, highest + 1)]


def seconds_of(time: str) -> int:
    """Returns the seconds of a time limit as Slurm writes it; 0 means without end."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = parts + [0] * (3 - len(parts))
    elif len(parts) < 3:
        hours, (minutes, seconds) = 0, parts + [0] * (2 - len(parts))
    else:
        hours, minutes, seconds = parts
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def batch_script(request: JobRequest, *, name: str, run_directory: Path, code: Path, data: Path) -> str:
    """Returns the batch script of a run or a sweep; nothing in it is read by the shell as anything but a word.

    Args:
        request: what is asked of Slurm.
        name: of the run and the job.
        run_directory: where the run lies, or the runs of the sweep; on storage that all nodes share, as are the others.
        code: directory with the packages to run.
        data: directory of the prepared text; a container must see it.

    Raises:
        LongformerError: a path holds characters that sbatch would read otherwise.
    """
    here = Path.cwd()
    for path in (run_directory, here, data, Path(sys.executable)):
        if not _PATH.fullmatch(str(path)):
            raise LongformerError(
                f"{path} cannot be written into a batch script; use a path of letters, digits and ./_-+@:="
            )
    sweep = request.tasks is not None
    options = {
        "time": request.time,
        "partition": request.partition,
        "gpus-per-node": request.gpus_per_node or None,
        "array": f"0-{request.tasks - 1}" if request.tasks else None,
    }
    written = [f"{option}={value}" for option, value in options.items() if value is not None] + list(request.options)
    requeue = request.chain == 1
    ends = ["ray_end"] * request.ray + ["requeue"] * requeue
    values = {
        "name": name,
        "nodes": request.nodes,
        "options": "\n".join(f"#SBATCH --{option}" for option in written),
        "working_directory": here,
        "log": run_directory / ("%a" if sweep else "") / "logs" / "job.log",
        "checkpoint_seconds": request.checkpoint_seconds,
        "requeue": "requeue" if requeue else "no-requeue",
        "run": f"{run_directory}/$SLURM_ARRAY_TASK_ID" if sweep else run_directory,
        "code": code,
        "modules": "".join(f"module load {module}\n" for module in request.modules),
        "python": "python3" if request.container else sys.executable,
        **_containers(request, sorted({run_directory.parent, data.parent, here})),
        "ranks_per_node": request.ranks_per_node,
        "gpus_per_node": request.gpus_per_node,
    }
    script = _template("run.sbatch").replace("{{start}}", _template("ray.sh" if request.ray else "srun.sh"))
    script = script.replace("{{end}}", "\n".join(_template(f"{part}.sh") for part in ends))
    return re.sub(r"\{\{(\w+)\}\}", lambda gap: str(values[gap[1]]), script)


def _containers(request: JobRequest, directories: list[Path]) -> dict[str, str]:
    """Returns the words that put a command of the batch script, and one given to srun, into the container."""
    if request.container is None:
        return {"in_container": "", "in_step": ""}
    if request.pyxis:
        mounts = ",".join(f"{directory}:{directory}" for directory in directories)
        step = f"--container-image={request.container} --container-mounts={mounts} --container-workdir={Path.cwd()} "
        here = f'srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" {step}'
        return {"in_container": here, "in_step": step}
    gpus = "--nv " if request.gpus_per_node else ""
    step = f"apptainer exec {gpus}--bind {','.join(map(str, directories))} {request.container} "
    return {"in_container": step, "in_step": step}


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _check(option: str, value: str, form: re.Pattern[str], description: str) -> None:
    if not form.fullmatch(value):
        raise LongformerError(f"{option} {value!r} is not {description}")
