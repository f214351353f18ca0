"""Sections of a character model's run file: the model of the Longformer paper, its text, and how it is evaluated."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.config.run_config import RunConfig, TaskWords
from launcher.config.sections import Count, DataSection, Fraction, PhaseSection, Section
from longformer.models.char_lm.config import CHARACTER_MODEL_SIZES, CharacterModelConfig


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
        """Returns the complete shape of the model with these windows (one per layer) and this vocabulary."""
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


class TextSection(DataSection):
    """Which text is learned, and where its prepared form lies."""

    recipe: Literal["enwik8", "text8", "text", "python_library"] = "python_library"
    """How the text is read and split. `python_library` needs no source: it is the English text of this Python."""
    source: Path | None = None
    """File or folder the text comes from (plain, .xz, .gz or .zip); relative to the working directory."""
    limit_bytes: PositiveInt | None = None
    """Use only this many bytes from the start of the source; `null` = all of it."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.source is None and self.recipe != "python_library":
            raise ValueError(f"source is missing: the recipe {self.recipe} reads a file or folder, name it here")
        if self.source is not None and self.recipe == "python_library":
            raise ValueError("source must be null: the recipe python_library reads the installed Python only")
        return self


class EvaluationSection(Section):
    """How held-out text is evaluated: long overlapping sequences of which only the last positions are scored."""

    sequence_length: PositiveInt = 2048
    """Characters per evaluated sequence; 32,256 in the paper."""
    stride: PositiveInt = 512
    """Step between two sequences, and how many positions at the end of each are scored; 512 in the paper."""
    batch_size: PositiveInt = 4
    """Sequences per rank and forward pass."""
    limit_tokens: PositiveInt | None = None
    """Evaluate only this much of the validation split at the end of a phase; the test split is evaluated whole."""

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.stride > self.sequence_length:
            raise ValueError(f"stride is {self.stride}, more than sequence_length ({self.sequence_length})")
        return self


class CharacterPhaseSection(PhaseSection):
    """One phase of the training; each starts from the weights of the one before."""

    windows: tuple[PositiveInt, ...]
    """Look-back of each layer, bottom to top, in keys (times the dilation, where the layer is dilated)."""


class CharacterRun(RunConfig):
    """A character language model that learns a text phase by phase."""

    # Left out when written: these run files had no task when there was but one, and keep their fingerprints.
    task: Literal["characters"] = Field(default="characters", exclude=True)
    """What is learned: here, to predict the next character."""
    model: ModelSection = ModelSection()
    """The model."""
    data: TextSection
    """The text."""
    phases: tuple[CharacterPhaseSection, ...]
    """The phases, in order."""
    evaluation: EvaluationSection = EvaluationSection()
    """How held-out text is evaluated after each phase."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_character",
            bits_short="BPC",
            scores=("bits_per_character",),
            score_short="BPC",
            metrics={"bits_per_character": "min"},
        )

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        layers = self.model.shape["layers"]
        if self.training.freeze_layers > layers:
            raise ValueError(
                f"training.freeze_layers is {self.training.freeze_layers}, but the model has {layers} layers"
            )
        for index, phase in enumerate(self.phases):
            if len(phase.windows) != layers:
                raise ValueError(
                    f"phases[{index}].windows has {len(phase.windows)} values, but the model has {layers} layers: "
                    "give one window per layer"
                )
        return self

    def character_model(self, phase_index: int, vocabulary_size: int) -> CharacterModelConfig:
        """Returns the shape of the model in a phase: the same weights everywhere, the windows of that phase."""
        return self.model.character_model(
            windows=self.phases[phase_index].windows,
            vocabulary_size=vocabulary_size,
            activation_checkpointing=self.training.activation_checkpointing is True,
        )
