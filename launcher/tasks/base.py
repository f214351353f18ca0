"""What a task is: what sets one kind of training apart from another.

A task says which data it has (`launcher.tasks.data.TaskData`), which model learns it, how well it has learned, and
what it costs. Everything else is generic: preparing and checking the data, the start, batches, checkpoints, the
evaluation after each phase, the export, the report, plans, registering and serving.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from rich.console import Console, RenderableType
from rich.progress import Progress
from torch import Tensor, nn

from launcher.reporting.html import Section
from launcher.reporting.terminal import terminal_table
from launcher.reporting.text import flattened
from launcher.runs.run import Run
from launcher.tasks.data import BatchShare, Config, TaskData
from longformer.costs.memory import TrainingLayout, Weights
from longformer.costs.training import TrainingCost
from longformer.errors import LongformerError
from longformer.files import write_atomically
from longformer.models.common.layer_order import freeze_lower_layers
from longformer.training.distributed import Ranks
from longformer.training.objectives import LABELS, BatchSource, Lengths, Objective

Data = TypeVar("Data", bound=TaskData[Any])


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Which held-out data is evaluated, how, and which part of the work is this rank's."""

    split: str
    within_phase: bool = False
    """Whether the phase goes on afterwards: only scores are asked for."""
    after_phase: bool = False
    """Whether a phase has just ended."""
    sequence_length: int | None = None
    stride: int | None = None
    batch_size: int | None = None
    """These three: None = as in the run file."""
    rank: int = 0
    world_size: int = 1
    report_progress: Callable[[int, int], None] | None = None
    """Called as report_progress(done, total), equally often on every rank."""


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on held-out data."""

    scores: dict[str, Any]
    """What evaluation.json says of the split: numbers, and dictionaries of them, by name."""
    table: Sequence[Mapping[str, Any]] = ()
    """Predictions, one a line: JSON values by name; numbers of the line itself lie under `scores`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it has decided of how the model is used, such as a threshold: fields of the model's config."""

    def settle(self, model: Any) -> None:
        """Notes in a model's config what was decided."""
        if self.settings:
            model.config.other = {**model.config.other, **self.settings}


@dataclass(frozen=True)
class EvaluatedRun:
    """What `longformer evaluate` says."""

    text: RenderableType
    """For people."""
    values: dict[str, Any]
    """For programs."""


@dataclass(frozen=True)
class TaskReport:
    """What a task adds to the report of a finished run."""

    sections: tuple[Section, ...] = ()
    """Of the HTML page."""
    notes: tuple[str, ...] = ()
    """Sentences below the table of phases."""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Further columns of the table of phases, by heading: a text for every phase."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """For summary.json."""
    figures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG pictures by name, written as report/NAME.png."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Lines as in `Evaluation.table` by name, written as report/tables/NAME.json."""


@dataclass(frozen=True)
class Task(ABC, Generic[Config, Data]):
    """One run's task. Made from the run file alone, anywhere and at no cost; holds nothing that changes.

    `origin` is a folder with a model: the result of the phase before, the run's start, or None for fresh weights.
    """

    config: Config
    data: Data

    has_export: ClassVar[bool] = False
    """Whether the trained model has another form in which it leaves the run."""
    global_tokens: ClassVar[int] = 0
    """Of a text, as far as costs go: a few more or less make no difference."""
    table_name: ClassVar[str] = "predictions"
    """Stands in the names of the files that hold `Evaluation.table`."""

    @abstractmethod
    def build_model(self, index: int, origin: Path | None) -> nn.Module:
        """Returns the model of a phase in training mode, with the weights of `origin` or fresh ones."""

    @abstractmethod
    def blank_model(self, index: int, origin: Path | None) -> nn.Module:
        """Returns what `build_model` does without the weights, on PyTorch's meta device; there `origin` may be None for
        the model that the run will start from."""

    @property
    def objective(self) -> Objective:
        """What the weights are moved towards. Unless a task says otherwise: the `loss` that the model returns, the
        mean over the labelled positions of the batch."""
        return LABELS

    @abstractmethod
    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns how good the model of a phase is; all ranks share the work, must call it, and return the same."""

    def report(self, run: Run) -> TaskReport:
        """Returns what the report of a finished run says beyond what all reports say."""
        return TaskReport()

    def write_start(self, target: Path) -> str | None:
        """Writes the model that the first phase starts from, where that has no random weights.

        Returns:
            Exactly which model it was made of: an absolute path, or models:/NAME/VERSION; None: nothing was written.

        Raises:
            LongformerError: that model cannot be read or converted.
            WorkFailed: MLflow does not answer or refuses.
        """
        return None

    @abstractmethod
    def check_start(self, model: Path) -> None:
        """Checks that the run can start from a model of the user's instead, as `init` asks.

        Raises:
            LongformerError: it is a model of another kind or shape.
        """

    def settle_start(self, start: Path) -> None:
        """Writes into the run's own copy of that model what the run decides: how it reads texts and writes them."""

    def export(self, model: Path, target: Path) -> None:
        """Writes the last phase's model in the form that others use; only where `has_export`."""
        raise NotImplementedError

    def copy_companions(self, origin: Path | None, target: Path) -> None:
        """Copies to a model's folder what it needs beside its weights to be used, such as a tokenizer."""

    @property
    def answer_settings(self) -> dict[str, Any]:
        """Keywords of `longformer.inference.serving.open_model` with which the registered model answers."""
        return {}

    def evaluated_splits(self, index: int) -> list[str]:
        """Returns the splits that a phase is evaluated on at its end, validation first."""
        return ["validation", "test"] if index == len(self.config.phases) - 1 else ["validation"]

    def full_lengths(self, index: int) -> list[Lengths]:
        """Returns the tokens of each text of a sequence of a phase that needs no padding."""
        return [Lengths(self.config.phases[index].sequence_length)]

    def predictions(self, lengths: Lengths) -> float:
        """Returns at how many positions of such a text something is predicted: once, of the whole, unless a task says
        otherwise."""
        return 1.0

    # What follows is the same for every task.

    def parameters(self, origin: Path | None = None) -> int:
        """Returns the number of weights of the model in `origin`, or of the one that the run will start from."""
        return Weights.of(self.blank_model(0, origin)).all

    def cost(self, index: int, origin: Path | None = None) -> TrainingCost:
        """Returns what it costs to train in a phase; `origin` as in `blank_model`.

        Raises:
            LongformerError: as `freeze_layers`.
        """
        model = self.blank_model(index, origin)
        self.freeze_layers(model)
        return TrainingCost(model, self.full_lengths(index), self.predictions, self.global_tokens)

    def freeze_layers(self, model: nn.Module) -> None:
        """Freezes the lowest layers of a phase's model, as many as the run file says.

        Raises:
            LongformerError: it has fewer.
        """
        try:
            freeze_lower_layers(model, self.config.training.freeze_layers)
        except ValueError as error:
            raise LongformerError(f"training.freeze_layers: {error}") from error

    def batches(self, index: int, ranks: Ranks, skipped: frozenset[int]) -> BatchSource:
        """Returns the rank's batches of a phase, without the global batches that begin at `skipped`."""
        batching = self.config.phases[index].batching(ranks.world_size)
        return self.data.batches(index, BatchShare(ranks.rank, ranks.world_size, batching.micro_batch_size), skipped)

    def layout(self, index: int, *, ranks: int, on_gpu: bool) -> TrainingLayout:
        """Returns how a phase is laid out over ranks.

        Raises:
            LongformerError: its batch cannot be divided over them.
        """
        training = self.config.training
        return TrainingLayout(
            micro_batch_size=self.config.phases[index].batching(ranks).micro_batch_size,
            ranks=ranks,
            zero_stage=training.zero_stage,
            precision=training.precision,
            activation_checkpointing=training.activation_checkpointing is True,
            on_gpu=on_gpu,
            offload_optimizer=training.offload_optimizer,
        )

    def write_model(
        self,
        index: int,
        weights: Mapping[str, Tensor],
        origin: Path | None,
        target: Path,
        *,
        evaluations: Iterable[Evaluation] = (),
    ) -> None:
        """Writes the model directory of a phase's result, with all that the model needs to be used.

        Args:
            index: of the phase.
            weights: every parameter, whole, by name.
            origin: what `build_model` was given.
            target: a directory that does not exist.
            evaluations: of the model.
        """
        model: Any = self.build_model(index, origin)
        for evaluation in evaluations:
            evaluation.settle(model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        model.save_pretrained(target)
        self.copy_companions(origin, target)

    def write_table(self, directory: Path, split: str, evaluation: Evaluation) -> Path | None:
        """Writes the predictions of a split as JSON lines and returns the file, None where there are none."""
        if not evaluation.table:
            return None
        path = directory / f"{self.table_name}-{split}.jsonl"
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in evaluation.table).encode())
        return path

    def evaluate_run(self, run: Run, request: EvaluationRequest) -> EvaluatedRun:
        """Evaluates the newest finished phase of a run, and keeps the predictions in the run's directory.

        Raises:
            LongformerError: no phase is done, or other data lies where the run's was.
        """
        self.check_data(run)
        result = run.newest_result()
        index = len(run.finished_results()) - 1
        model = self.build_model(index, result / "model").eval()
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"evaluating {request.split}", total=None)
            request = replace(
                request, report_progress=lambda done, total: bar.update(task, completed=done, total=total)
            )
            evaluation = self.evaluate(model, index, request)
        values = {"split": request.split, "model": str(result / "model"), **evaluation.scores}
        written = self.write_table(run.paths.root, request.split, evaluation)
        if written is not None:
            values["table"] = str(written)
        title = f"{result / 'model'} on {request.split}"
        table = terminal_table(("score", "value"), list(flattened(evaluation.scores)), title=title)
        return EvaluatedRun(table, values)

    def check_data(self, run: Run) -> None:
        """Checks that the data of a run is still what it was trained on.

        Raises:
            LongformerError: other data lies there now.
            DataError: it is missing or damaged.
        """
        now, then = self.data.fingerprint(), run.paths.identity().data_fingerprint
        if now != then:
            raise LongformerError(
                f"{self.data.directory} holds other data than {run.paths.root} was trained on (fingerprint {now[:12]}, "
                f"expected {then[:12]}); prepare it again"
            )
