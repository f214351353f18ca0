"""The sections of a run file: what may be written in it, with which defaults and limits.

Each section is a frozen pydantic model; an unknown key is refused. The text under a field is its
documentation, from which docs/configuration.md is generated. The message of a check over several
fields begins with the field it is about, so that the reader of the file sees the full path.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from launcher.mlflow_address import check_address
from longformer.errors import LongformerError
from longformer.models.config import CHARACTER_MODEL_SIZES, CharacterModelConfig

Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveNumber = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, docstrings as field descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSection(Section):
    """The character language model of the Longformer paper; everything but the windows, which belong to a phase."""

    size: Literal["tiny", "small", "large"] = "tiny"
    """Named shape to start from: tiny (about 3M parameters), small (41.0M) or large (102.4M)."""
    layers: PositiveInt | None = None
    """Number of layers, where it differs from the size's."""
    hidden_size: PositiveInt | None = None
    """Width of the residual stream, where it differs from the size's; an even multiple of `heads`."""
    heads: PositiveInt | None = None
    """Attention heads per layer, where they differ from the size's."""
    feedforward_size: PositiveInt | None = None
    """Inner width of the feed-forward blocks, where it differs from the size's."""
    position: Literal["transformer_xl", "rotary"] = "transformer_xl"
    """Relative positions: the sinusoidal ones of Transformer-XL (as in the paper) or rotary ones (faster)."""
    dropout: Fraction = 0.0
    """Dropout of the embeddings, the attention output and the feed-forward blocks."""
    attention_dropout: Fraction = 0.0
    """Dropout of the attention probabilities."""
    dilations: tuple[PositiveInt, ...] | None = None
    """Dilation of each layer, bottom to top; 1 or `null` = no gaps, 2 = every second position, and so on."""
    dilated_heads: Count = 2
    """How many heads of a layer use its dilation; the others look at neighbours without gaps."""

    @property
    def shape(self) -> dict[str, int]:
        """Layers, hidden size, heads and feed-forward size: those of the named size with the overrides."""
        overrides = {name: getattr(self, name) for name in ("layers", "hidden_size", "heads", "feedforward_size")}
        return CHARACTER_MODEL_SIZES[self.size] | {name: value for name, value in overrides.items() if value}

    def character_model(
        self, *, windows: tuple[int, ...], vocabulary_size: int, activation_checkpointing: bool = False
    ) -> CharacterModelConfig:
        """Return the complete shape of the model with these windows (one per layer) and this vocabulary."""
        return CharacterModelConfig(
            **self.shape,
            windows=windows,
            vocabulary_size=vocabulary_size,
            dilations=self.dilations or (1,) * self.shape["layers"],
            dilated_heads=self.dilated_heads,
            position=self.position,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_checkpointing=activation_checkpointing,
        )

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        # The model's own checks name the field; windows and vocabulary are not known here and any will do.
        self.character_model(windows=(1,) * self.shape["layers"], vocabulary_size=2)
        return self


class DataSection(Section):
    """Which text is learned, and where its prepared form lies."""

    recipe: Literal["enwik8", "text8", "text", "python_library"] = "python_library"
    """How the text is read and split. `python_library` needs no source: it is the English text of this Python."""
    source: Path | None = None
    """File or folder the text comes from (plain, .xz, .gz or .zip); relative to the working directory."""
    directory: Path
    """Folder of the prepared shards; made when it is absent, reused when source and recipe are unchanged."""
    limit_bytes: PositiveInt | None = None
    """Use only this many bytes from the start of the source; `null` = all of it."""
    loader_workers: Count = 0
    """Processes per rank that make batches ahead of time; the batches are the same with any number."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.source is None and self.recipe != "python_library":
            raise ValueError(f"source is missing: the recipe {self.recipe} reads a file or folder, name it here")
        if self.source is not None and self.recipe == "python_library":
            raise ValueError("source must be null: the recipe python_library reads the installed Python only")
        return self


class TrainingSection(Section):
    """How the weights are learned, the same in every phase."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage: what is sharded over ranks. 0 nothing, 1 optimizer, 2 and gradients, 3 and weights."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the forward and backward pass; the optimizer keeps fp32 weights in any case."""
    gradient_clipping: PositiveNumber = 0.25
    """Largest norm of the gradient over all parameters; larger ones are scaled down to it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    adam_betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of AdamW's two moving averages."""
    adam_epsilon: PositiveNumber = 1.0e-8
    """The small number in AdamW's denominator."""
    activation_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations: less memory, more time."""
    checkpoint_every_steps: PositiveInt = 100
    """Steps between two checkpoints; the end of a phase always has one."""
    checkpoints_kept: PositiveInt = 2
    """How many of the newest checkpoints of a phase are kept."""
    deterministic: bool = False
    """Use only operations that give the same bits in every run on the same hardware, on GPUs too, and refuse others."""
    on_bad_loss: Literal["stop", "skip", "roll_back"] = "stop"
    """What follows a loss that is not finite or a spike: stop, leave out the batch, or go back to the last checkpoint
    and leave it out. No weight has changed in any case."""
    spike_threshold: PositiveNumber | None = None
    """A loss so many robust standard deviations above the median of the last 64 is a spike; `null` = none is."""
    stall_seconds: PositiveInt = 1800
    """Without a step for so long, every rank prints its stack into its log and the run ends."""
    checkpoint_in_background: bool = False
    """Copy the state to memory and write it while training goes on; takes as much memory as a checkpoint is large."""
    checkpoint_copies: str | None = None
    """URL or directory where checkpoints are copied to, such as s3://bucket/runs; a run that has lost its own goes on
    from there. Kinds of storage beyond local ones and HTTP need their fsspec package."""
    permanent_checkpoint_every_steps: PositiveInt | None = None
    """Checkpoints at multiples of this many steps are never removed; a multiple of `checkpoint_every_steps`."""

    @model_validator(mode="after")
    def _check_permanent_checkpoints(self) -> Self:
        permanent = self.permanent_checkpoint_every_steps
        if permanent is not None and permanent % self.checkpoint_every_steps:
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


class PhaseSection(Section):
    """One phase of the training; each starts from the weights of the one before."""

    name: Name
    """Name of the phase, unique in the run; part of folder names."""
    sequence_length: PositiveInt
    """Characters per training sequence."""
    windows: tuple[PositiveInt, ...]
    """Look-back of each layer, bottom to top, in keys (times the dilation, where the layer is dilated)."""
    learning_rate: PositiveNumber
    """Peak learning rate, reached at the end of the warm-up."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after the warm-up; linear and cosine fall to 0 right after the last step."""
    warmup_steps: Count = 0
    """Steps over which the learning rate rises linearly from 0."""
    steps: PositiveInt
    """Optimizer steps of the phase."""
    batch_size: PositiveInt
    """Sequences in a global batch, over all ranks."""
    micro_batch_size: PositiveInt | None = None
    """Sequences per rank and forward pass; `null` = `batch_size` / ranks, that is no gradient accumulation."""
    optimizer: Literal["keep", "reset"] = "keep"
    """Whether the optimizer's moving averages go on from the phase before or start anew."""

    @model_validator(mode="after")
    def _check_steps_and_batch(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than the phase's steps ({self.steps})")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size is {self.micro_batch_size}, which does not divide batch_size ({self.batch_size})"
            )
        return self

    @property
    def tokens_per_step(self) -> int:
        """Characters predicted in one optimizer step, over all ranks."""
        return self.batch_size * self.sequence_length

    def batching(self, ranks: int) -> Batching:
        """Return how a global batch is divided over `ranks` ranks.

        Raises:
            LongformerError: the batch cannot be divided evenly.
        """
        micro_batch_size = self.micro_batch_size or self.batch_size // ranks
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


class EvaluationSection(Section):
    """How held-out text is judged: long overlapping sequences of which only the last positions are scored."""

    sequence_length: PositiveInt = 2048
    """Characters per evaluated sequence; 32,256 in the paper."""
    stride: PositiveInt = 512
    """Step between two sequences, and how many positions at the end of each are scored; 512 in the paper."""
    batch_size: PositiveInt = 4
    """Sequences per rank and forward pass."""
    limit_tokens: PositiveInt | None = None
    """Judge only this much of the validation split at the end of a phase; the test split is always judged whole."""

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.stride > self.sequence_length:
            raise ValueError(f"stride is {self.stride}, more than sequence_length ({self.sequence_length})")
        return self


class TrackingSection(Section):
    """MLflow, which keeps the parameters, metrics, plots and the model of every run."""

    uri: str | None = None
    """Address of an MLflow server or SQLite file, without credentials; `null` = MLFLOW_TRACKING_URI where it is set,
    else an SQLite file beside the run directories, opened by `longformer ui`."""
    experiment: str = "longformer"
    """MLflow experiment the run belongs to."""

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        if self.uri is not None:
            try:
                check_address(self.uri)
            except ValueError as error:
                raise ValueError(f"uri {error}") from None
        return self
