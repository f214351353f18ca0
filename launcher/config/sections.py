"""The sections that all run files share: what may be written in them, with which defaults and limits.

Each section is a frozen pydantic model; an unknown key is refused. The text under a field is its
documentation, from which docs/configuration.md is generated. The message of a check over several
fields begins with the field it is about, so that the reader of the file sees the full path.
"""

import math
from dataclasses import dataclass
from fractions import Fraction as Ratio
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from launcher.config.mlflow_address import check_address
from longformer.errors import LongformerError
from longformer.training.schedules import Decay

Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveNumber = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
BackendName = Literal["local", "slurm", "ray", "torchrun"]
MAY_CHANGE = Field(json_schema_extra={"may_change": True})
"""Marks a field, or a whole section, that says on which machines and how safely a run is done, not what is learned: a
run may be resumed with another value."""


class Section(BaseModel):
    """Frozen, no unknown keys, docstrings as field descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class RankRange:
    """The lowest and the highest allowed number of ranks; equal where there is no choice."""

    min: int
    max: int

    @classmethod
    def parse(cls, written: str) -> Self:
        """Returns the range that is written as 4 or as 2-4.

        Raises:
            ValueError: it is neither.
        """
        first, dash, last = written.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{written!r} is neither a number of ranks such as 4 nor a range of them such as 2-4")
        lowest, highest = int(first), int(last or first)
        if not 1 <= lowest <= highest:
            raise ValueError(f"{written!r} is no range of ranks: the lower number comes first, and it is at least 1")
        return cls(lowest, highest)

    def __str__(self) -> str:
        return str(self.max) if self.min == self.max else f"{self.min}-{self.max}"


def parse_ranks_option(option: str) -> RankRange:
    """Returns the range that `--ranks` was given.

    Raises:
        LongformerError: it is not a range.
    """
    try:
        return RankRange.parse(option)
    except ValueError as error:
        raise LongformerError(f"--ranks: {error}") from None


class ResourcesSection(Section):
    """What a phase asks of a Ray cluster."""

    ranks: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None
    """Processes that train together, such as 4 or 2-4; `null` = those of `--ranks`."""
    gpus_per_rank: Annotated[int, Field(ge=0)] | None = None
    """GPUs of each rank; `null` = 1 where the cluster has any, else 0."""
    processors_per_rank: PositiveInt = 1
    """Processor cores of each rank."""

    @property
    def rank_range(self) -> RankRange | None:
        """The ranks as numbers; None where `--ranks` decides."""
        return None if self.ranks is None else RankRange.parse(self.ranks)

    @model_validator(mode="after")
    def _check_ranks(self) -> Self:
        try:
            _ = self.rank_range
        except ValueError as error:
            raise ValueError(f"ranks: {error}") from None
        return self


class ClusterSection(Section):
    """How a run lives on a cluster, whose machines come and go."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often ranks may be lost before there is a new checkpoint; once more ends the run."""


class TrainingSection(Section):
    """How the weights are learned, the same in every phase."""

    zero_stage: Annotated[Literal[0, 1, 2, 3], MAY_CHANGE] = 2
    """DeepSpeed ZeRO stage: what is sharded over ranks. 0 nothing, 1 optimizer, 2 and gradients, 3 and weights."""
    offload_optimizer: Annotated[bool, MAY_CHANGE] = False
    """Keep AdamW's state in main memory and update the weights there: less GPU memory, more time. Needs ZeRO 1 to 3."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the forward and backward pass; the optimizer keeps fp32 weights in any case."""
    gradient_clipping: PositiveNumber = 0.25
    """Largest norm of the gradient over all parameters; larger ones are scaled down to it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of each layer over that of the one above it, down to the embeddings; 1 = the same for all."""
    head_learning_rate_factor: PositiveNumber = 1.0
    """Learning rate of what stands above all layers, such as a fresh head, over `learning_rate`."""
    freeze_layers: Count = 0
    """Leave so many of the lowest layers as they are, and the embeddings with them; 0 = train everything."""
    adam_betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of AdamW's two moving averages."""
    adam_epsilon: PositiveNumber = 1.0e-8
    """The small number in AdamW's denominator."""
    activation_checkpointing: Annotated[bool | Literal["auto"], MAY_CHANGE] = False
    """Recompute each layer in the backward pass instead of keeping its activations: less memory, more time; `auto` =
    where not even a micro-batch of one sequence fits without."""
    compile: Annotated[Literal["auto", True, False], MAY_CHANGE] = "auto"
    """Compile every layer with torch.compile, minutes before the first step; auto = on GPUs, unless `zero_stage` is 3,
    which gathers weights inside the layers."""
    checkpoint_every_steps: Annotated[PositiveInt, MAY_CHANGE] = 100
    """Steps between two checkpoints; the end of a phase always has one."""
    checkpoint_every_minutes: Annotated[PositiveNumber | None, MAY_CHANGE] = None
    """Minutes between two checkpoints, instead of `checkpoint_every_steps`; `null` = these count."""
    checkpoints_kept: Annotated[PositiveInt, MAY_CHANGE] = 2
    """How many of the newest checkpoints of a phase are kept."""
    deterministic: bool = False
    """Use only operations that give the same bits in every run on the same hardware, on GPUs too, and refuse others."""
    on_bad_loss: Literal["stop", "skip", "roll_back"] = "stop"
    """What follows a loss that is not finite or a spike: stop, leave out the batch, or go back to the last checkpoint
    and leave it out. No weight has changed in any case."""
    spike_threshold: PositiveNumber | None = None
    """A loss so many robust standard deviations above the median of the last 64 is a spike; `null` = none is."""
    stall_seconds: Annotated[PositiveInt, MAY_CHANGE] = 1800
    """Without a step for so long, every rank prints its stack into its log and the run ends."""
    checkpoint_in_background: Annotated[bool, MAY_CHANGE] = False
    """Copy the state to memory and write it while training goes on; takes as much memory as a checkpoint is large."""
    checkpoint_copies: Annotated[str | None, MAY_CHANGE] = None
    """URL or directory where checkpoints are copied to, such as s3://bucket/runs; a run that has lost its own goes on
    from there. Kinds of storage beyond local ones and HTTP need their fsspec package."""
    permanent_checkpoint_every_steps: Annotated[PositiveInt | None, MAY_CHANGE] = None
    """Checkpoints at multiples of this many steps are never removed; a multiple of `checkpoint_every_steps`, unless
    minutes count."""

    @model_validator(mode="after")
    def _check_offload(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError(
                "offload_optimizer is true, but without ZeRO the optimizer stays with the weights; choose zero_stage 1 "
                "to 3"
            )
        return self

    @model_validator(mode="after")
    def _check_compile(self) -> Self:
        if self.compile is True and self.zero_stage == 3:
            raise ValueError(
                "compile is true, but zero_stage 3 gathers weights inside the layers: choose auto or false"
            )
        return self

    def compiles(self, *, on_gpu: bool) -> bool:
        """Returns whether layers are compiled."""
        return on_gpu and self.zero_stage < 3 if self.compile == "auto" else self.compile

    @model_validator(mode="after")
    def _check_permanent_checkpoints(self) -> Self:
        permanent = self.permanent_checkpoint_every_steps
        if permanent is not None and self.checkpoint_every_minutes is None and permanent % self.checkpoint_every_steps:
            raise ValueError(
                f"permanent_checkpoint_every_steps is {permanent}, which is not a multiple of checkpoint_every_steps "
                f"({self.checkpoint_every_steps})"
            )
        return self


@dataclass(frozen=True)
class Batching:
    """How a global batch is divided: sequences per rank and forward pass, and forward passes per step."""

    micro_batch_size: int
    accumulation_steps: int


class IntervalSection(Section):
    """How much is learned from one evaluation to the next: so many steps, or epochs."""

    steps: PositiveInt | None = None
    """Optimizer steps."""
    epochs: PositiveNumber | None = None
    """Times through the training data, such as 0.5."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        _check_steps_or_epochs(self.steps, self.epochs)
        return self


class BestSection(Section):
    """By which evaluation the best step of a phase is told, and how long a better one is waited for."""

    metric: str
    """Name of a score in the evaluation, such as accuracy."""
    mode: Literal["max", "min"] | None = None
    """Which of two values is better; `null` = as the task has it."""
    patience: PositiveInt | None = None
    """Training ends after so many evaluations in a row without a new best one; `null` = never before the last step."""


class PhaseSection(Section):
    """One phase of the training; each starts from the weights of the one before."""

    name: Name
    """Name of the phase, unique in the run; part of folder names."""
    sequence_length: PositiveInt
    """Tokens per training sequence; of a character model, characters."""
    learning_rate: PositiveNumber
    """Peak learning rate, reached at the end of the warm-up."""
    decay: Decay = "constant"
    """Course of the learning rate after the warm-up; linear, cosine and cubic (polynomial of power 3) fall to 0 right
    after the last step, wsd (warm-up, stable, decay) stays and falls linearly over the last part of the phase."""
    decay_part: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Of wsd: share of the phase's steps over which the learning rate falls."""
    warmup_steps: Count = 0
    """Steps over which the learning rate rises linearly from 0."""
    steps: PositiveInt | None = None
    """Optimizer steps of the phase; either these or `epochs`."""
    epochs: PositiveNumber | None = None
    """How often the phase goes through the training data, such as 3 or 0.5; a run keeps the steps that this makes."""
    batch_size: PositiveInt
    """Sequences in a global batch, over all ranks."""
    micro_batch_size: Annotated[PositiveInt | Literal["auto"] | None, MAY_CHANGE] = None
    """Sequences per rank and forward pass; `null` = `batch_size` / ranks, that is no gradient accumulation; `auto` = as
    many as fit into the memory of the device that the phase finds."""
    evaluate_every: IntervalSection | None = None
    """Evaluate held-out data within the phase every so often, `{steps: 200}` or `{epochs: 0.5}`, and at its end."""
    best: BestSection | None = None
    """Let the phase's result be the step with the best evaluation: `metric`, `mode`, `patience`, such as
    `{metric: accuracy, patience: 3}`; `null` = it is the last step."""
    optimizer: Literal["keep", "reset"] = "keep"
    """Whether the optimizer's moving averages go on from the phase before or start anew."""
    resources: Annotated[ResourcesSection, MAY_CHANGE] = ResourcesSection()
    """What the phase asks of a Ray cluster: `ranks`, `gpus_per_rank`, `processors_per_rank`."""

    @model_validator(mode="after")
    def _check_steps_and_batch(self) -> Self:
        _check_steps_or_epochs(self.steps, self.epochs)
        if self.best is not None and self.evaluate_every is None:
            raise ValueError("best needs evaluate_every: how often is it looked for, such as {epochs: 0.5}")
        if self.steps is not None and self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than the phase's steps ({self.steps})")
        if isinstance(self.micro_batch_size, int) and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size is {self.micro_batch_size}, which does not divide batch_size ({self.batch_size})"
            )
        return self

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the phase; known once `in_steps` has been called where the run file gives epochs."""
        assert self.steps is not None, "in_steps turns epochs into steps"
        return self.steps

    @property
    def counts_epochs(self) -> bool:
        """Whether something in the phase is given in epochs."""
        return self.epochs is not None or (self.evaluate_every is not None and self.evaluate_every.epochs is not None)

    def in_steps(self, samples: int) -> Self:
        """Returns the phase with everything in steps that is given in epochs of so many samples.

        Raises:
            LongformerError: the warm-up is longer than the phase.
        """
        changes: dict[str, Any] = {}
        if self.epochs is not None:
            steps = _steps_of(self.epochs, samples, self.batch_size)
            changes = {"steps": steps, "epochs": None}
            if self.warmup_steps > steps:
                raise LongformerError(
                    f"phase {self.name}: warmup_steps is {self.warmup_steps}, but {self.epochs:g} epochs of "
                    f"{samples:,} samples in batches of {self.batch_size} are only {steps:,} steps"
                )
        if self.evaluate_every is not None and self.evaluate_every.epochs is not None:
            every = _steps_of(self.evaluate_every.epochs, samples, self.batch_size)
            changes["evaluate_every"] = IntervalSection(steps=every)
        return self.model_copy(update=changes)

    @property
    def evaluate_every_steps(self) -> int | None:
        """Steps between two evaluations within the phase, known as `total_steps` is; None = there are none."""
        return None if self.evaluate_every is None else self.evaluate_every.steps

    @property
    def positions_per_step(self) -> int:
        """Tokens of one optimizer step, over all ranks, were no sequence padded; those of a decoder not counted."""
        return self.batch_size * self.sequence_length

    def batching(self, ranks: int) -> Batching:
        """Returns how a global batch is divided over `ranks` ranks; where it is `auto`, by single sequences.

        Raises:
            LongformerError: the batch cannot be divided evenly.
        """
        micro_batch_size = 1 if self.micro_batch_size == "auto" else self.micro_batch_size or self.batch_size // ranks
        if self.batch_size % ranks:
            raise LongformerError(
                f"phase {self.name}: batch_size {self.batch_size} cannot be divided over {ranks} ranks; "
                f"choose a multiple of {ranks}, or another number of ranks"
            )
        if self.batch_size % (micro_batch_size * ranks):
            raise LongformerError(
                f"phase {self.name}: batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{micro_batch_size} times {ranks} ranks; lower micro_batch_size or leave it null"
            )
        return Batching(micro_batch_size, self.batch_size // (micro_batch_size * ranks))

    def micro_batch_sizes(self, ranks: int) -> list[int]:
        """Returns the sizes that a micro-batch may have on so many ranks, the largest first.

        Raises:
            LongformerError: the batch cannot be divided evenly.
        """
        batching = self.batching(ranks)
        if self.micro_batch_size != "auto":
            return [batching.micro_batch_size]
        return divisors(batching.accumulation_steps)

    def possible_ranks(self, asked: RankRange) -> tuple[int, ...]:
        """Returns the numbers of ranks that divide the batch evenly, in ascending order.

        Args:
            asked: the range to choose from, where the phase does not name its own.

        Raises:
            LongformerError: no number in the range does.
        """
        allowed = self.resources.rank_range or asked
        possible = []
        for ranks in range(allowed.min, allowed.max + 1):
            try:
                self.batching(ranks)
            except LongformerError:
                if allowed.min == allowed.max:
                    raise
            else:
                possible.append(ranks)
        if not possible:
            size = self.micro_batch_size if isinstance(self.micro_batch_size, int) else 1
            raise LongformerError(
                f"phase {self.name}: batch_size {self.batch_size} in micro-batches of {size} can "
                f"be divided over no number of ranks from {allowed.min} to {allowed.max}; widen the range"
            )
        return tuple(possible)


def divisors(number: int) -> list[int]:
    """Returns the whole numbers that divide a positive one, the largest first."""
    return [each for each in range(number, 0, -1) if number % each == 0]


def _check_steps_or_epochs(steps: int | None, epochs: float | None) -> None:
    """Raises ValueError unless exactly one is given."""
    if (steps is None) == (epochs is None):
        problem = "missing, and epochs too" if steps is None else f"{steps} beside epochs {epochs:g}"
        raise ValueError(f"steps is {problem}: give one of the two (null takes back what another file says)")


def _steps_of(epochs: float, samples: int, batch_size: int) -> int:
    """Returns the steps in which so many epochs of samples are learned; a last batch that is not full counts.

    Exact in decimals: 0.1 epochs of 30 samples are 3, not 3.0000000000000004.
    """
    return math.ceil(Ratio(str(epochs)) * samples / batch_size)


class DataSection(Section):
    """Where the prepared form of the data lies, and how it is read."""

    directory: Path
    """Folder of the prepared data; made when it is absent, reused when source and tokenizer are unchanged."""
    loader_workers: Annotated[Count, MAY_CHANGE] = 0
    """Processes per rank that make batches ahead of time; the batches are the same with any number."""


class TrackingSection(Section):
    """MLflow, which keeps the parameters, metrics, plots and the model of every run."""

    uri: str | None = None
    """Address of an MLflow server or SQLite file, without credentials; `null` = MLFLOW_TRACKING_URI where it is set,
    else an SQLite file beside the run directories, opened by `longformer ui`."""
    experiment: str = "longformer"
    """MLflow experiment the run belongs to."""
    register_as: Annotated[Name | None, MAY_CHANGE] = None
    """Name under which the finished model becomes a new version in MLflow's registry; `null` = it does not."""

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        if self.uri is not None:
            try:
                check_address(self.uri)
            except ValueError as error:
                raise ValueError(f"uri {error}") from None
        return self
