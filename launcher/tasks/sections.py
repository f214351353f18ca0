"""The sections of a run file that tasks share: prepared data, and a short pretrained model that is made long."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.config.run_config import RunConfig, TaskWords
from launcher.config.sections import Count, DataSection, PositiveNumber, Section

ClassName = Annotated[str, Field(coerce_numbers_to_str=True)]


class PretrainedSection(Section):
    """The model that is trained on, and made long where it is short."""

    short_defaults: ClassVar[tuple[int, int]] = (4096, 512)
    """`max_length` and `window` of what a short model becomes where the run file does not say."""

    source: Path
    """Folder of a model in Hugging Face's layout, with its tokenizer, short or long; a finished run; or one in MLflow's
    registry (`models:/NAME@ALIAS`, `models:/NAME/VERSION`). Paths are relative to the working directory."""
    max_length: PositiveInt | None = None
    """Tokens that the long model reads; new positions repeat the source's own. `null` = those that a long source reads,
    4,096 of a short one (an encoder-decoder: 16,384). Less than a long source reads only limits the phases."""
    window: PositiveInt | None = None
    """Neighbours that a token sees, both sides together; even. `null` = those of a long source, 512 in what a short one
    becomes (an encoder-decoder: 1,024)."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window is not None and self.window % 2:
            raise ValueError(f"window is {self.window}, but it should be even: so many neighbours on each side")
        return self


class TokenizedSection(DataSection):
    """Where the prepared form of the data lies, and how its texts become tokens."""

    special_tokens: tuple[str, ...] | None = None
    """Special tokens of the tokenizer that stand for themselves in documents, such as `["<doc-sep>"]`, in training and
    in use; all others are text there. `null` = those that the tokenizer's folder names, as a trained model's does."""


class LabelledSection(TokenizedSection):
    """Which texts with labels are learned."""

    source: Path
    """File of records (JSON lines, JSON array, CSV, TSV, Parquet), or a folder of such files whose names tell train,
    validation and test apart; relative to the working directory."""
    encoding: str | None = None
    """Of files that are not UTF-8, such as cp1252; quarantine.jsonl says what they look like."""
    damaged_allowed: Count = 0
    """So many records may be unreadable or without a label; they are skipped and named in quarantine.jsonl."""
    bucket_batches: PositiveInt = 1
    """So many batches' texts are sorted by length and dealt out again, to pad less; 1 = in their shuffled order."""
    long_documents: str
    """What is read of texts that are longer than the phase's sequences."""


class ClassesSection(LabelledSection):
    """Which texts are learned whose labels are classes."""

    classes: tuple[ClassName, ...] | None = None
    """Names of the classes, in the order of the model's outputs; `null` = those of the training examples."""
    class_weights: Literal["balanced"] | dict[ClassName, PositiveNumber] | None = None
    """How much the labels of each class count in the loss: a number for every class by its name, or `balanced`: all
    classes as much as another, however rare; `null` = every label counts the same."""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if self.classes is not None and (len(set(self.classes)) != len(self.classes) or len(self.classes) < 2):
            raise ValueError(f"classes is {list(self.classes)}, but it should be two or more different labels")
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        known, weights = self.class_names, self.class_weights
        if known and isinstance(weights, dict) and set(weights) != set(known):
            raise ValueError(f"class_weights names {list(weights)}, but the classes are {list(known)}")
        return self

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Returns the names of the classes, none of what has no classes; None where the training examples decide."""
        return self.classes


class AnswersSection(LabelledSection):
    """Which questions about texts are learned, whose answers are pieces of the texts."""

    long_documents: Literal["windows", "truncate_end"] = "windows"
    """What is read of contexts that do not fit beside their question: `windows`, of which the best answer of all counts
    and training shows another one in every epoch, in every second epoch one that holds an answer; or the beginning
    (`truncate_end`). The question is always read whole, and has at most half of the tokens."""
    overlap: Count = 128
    """Tokens that two windows share, so that an answer at an edge is whole in one of them."""
    longest_answer: PositiveInt = 30
    """Tokens of the longest answer that is given."""


class LabelEvaluationSection(Section):
    """How much of the held-out examples is evaluated, and how many at a time."""

    batch_size: PositiveInt = 8
    """Examples per rank and forward pass."""
    limit_documents: PositiveInt | None = None
    """Evaluate only the first so many examples of each split; `null` = all."""


class PretrainedRun(RunConfig):
    """What the run files share whose model is made of a short one."""

    min_length: ClassVar[int] = 3
    """Tokens of the shortest sequence."""
    reader: ClassVar[str] = "the model"
    """What reads the sequences, for messages."""

    model: PretrainedSection
    """The model."""
    data: TokenizedSection
    """The data."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        for index, phase in enumerate(self.phases):
            length, longest = phase.sequence_length, self.model.max_length
            if length < self.min_length or (longest is not None and length > longest):
                most = "more" if longest is None else f"model.max_length ({longest})"
                raise ValueError(
                    f"phases[{index}].sequence_length is {length}, but {self.reader} reads {self.min_length} to {most} "
                    "tokens"
                )
        return self


class LabelledRun(PretrainedRun):
    """What the run files share that learn from texts with labels."""

    data: LabelledSection
    """The texts and their labels."""
    evaluation: LabelEvaluationSection = LabelEvaluationSection()
    """How held-out texts are judged after each phase."""


class ClassesRun(LabelledRun):
    """What the run files share whose labels are classes."""

    data: ClassesSection
    """The texts and their labels."""


class AnswersRun(LabelledRun):
    """What the run files share whose answers are pieces of texts."""

    data: AnswersSection
    """The questions, their texts and their answers."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_answer",
            bits_short="bits/answer",
            scores=("f1", "exact"),
            score_short="F1",
            metrics={"f1": "max", "exact": "max"},
        )
