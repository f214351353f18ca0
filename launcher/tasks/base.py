"""What sets one task apart from another: a `Task` for the whole run, from which each rank gets its `TaskPhase`.

The chain of steps, the worker, the backends, the plan and tracking know these two and no task by name.
Here nothing imports torch: run files are checked without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import RenderableType

from data_pipeline.prepare.parallel import TaskMap
from launcher.runs.run import Run

if TYPE_CHECKING:
    from launcher.tasks.task_phase import TaskPhase
    from longformer.costs.memory import MemoryEstimate


@dataclass(frozen=True)
class InputData:
    """What a run learns from, prepared."""

    directory: Path
    fingerprint: str
    """Equal exactly when the content is equal."""


@dataclass(frozen=True)
class TrainingText:
    """How much there is to learn from."""

    tokens: int
    shards: int


@dataclass(frozen=True)
class PhaseCost:
    """What a phase costs, by formula."""

    flops_per_token: float
    memory: "MemoryEstimate"
    """Bytes per rank."""


@dataclass(frozen=True)
class JudgementRequest:
    """What `longformer evaluate` was asked for; None: as the run file says."""

    split: str
    sequence_length: int | None = None
    stride: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Judgement:
    """How good a run's model is."""

    text: RenderableType
    """For people."""
    values: dict[str, Any]
    """For programs."""


class Task(Protocol):
    """One run's task. Made from the run file alone, anywhere and at no cost; holds nothing that changes."""

    has_start: bool
    """Whether the run starts from a model that `make_start` writes, not from random weights."""
    has_export: bool
    """Whether the trained model has another form in which it leaves the run."""

    @property
    def data_directory(self) -> Path:
        """Where the prepared data lies, or will lie."""
        ...

    def check(self) -> list[str]:
        """Return notes on what is unusual but allowed in the world around the run file.

        Raises:
            LongformerError, DataError: the run cannot start.
        """
        ...

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        """Make the data ready, or find it unchanged.

        Args:
            task_map: where the work is done; None: on this machine.

        Raises:
            DataError: source missing or damaged, or something else lies where the data should be.
        """
        ...

    def make_start(self, target: Path) -> None:
        """Write the model that the first phase starts from; only where `has_start`.

        Raises:
            LongformerError: the model that it is made of cannot be read or converted.
        """
        ...

    def check_start(self, model: Path, data: Path) -> None:
        """Check that the run can start from a model of the user's instead, as `init` asks, with prepared data.

        Raises:
            LongformerError: it is a model of another kind or shape.
        """
        ...

    def phase(self, index: int, data: Path) -> "TaskPhase":
        """Return the parts of a phase that learns from prepared data."""
        ...

    def export(self, model: Path, target: Path) -> None:
        """Write the last phase's model in the form that others use; only where `has_export`."""
        ...

    def report(self, run: Run) -> None:
        """Write the report of a run whose phases are all done into its directory, and print it."""
        ...

    def judge(self, run: Run, request: JudgementRequest) -> Judgement:
        """Return how good the run's newest model is on held-out data.

        Raises:
            LongformerError: no phase is done, or the request does not fit the task.
        """
        ...

    def parameters(self) -> int:
        """Return the number of weights."""
        ...

    def phase_cost(self, index: int, *, ranks: int, on_gpu: bool) -> PhaseCost:
        """Return what a phase costs on so many ranks, each a GPU or a CPU.

        Raises:
            LongformerError: its batch cannot be divided over the ranks.
        """
        ...

    def training_text(self) -> TrainingText | None:
        """Return how much there is to learn from; None until it is prepared."""
        ...
