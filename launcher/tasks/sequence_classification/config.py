"""The sections of a run file for classifying texts: a RoBERTa made long, and texts with a label each."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt, model_validator

from launcher.config.run_config import TaskWords
from launcher.config.sections import Count, Section
from launcher.tasks.sections import PretrainedRun, TokenizedSection


class LabelledSection(TokenizedSection):
    """Which labelled texts are learned, and where their prepared form lies."""

    source: Path
    """File of records (JSON lines, JSON array, CSV, Parquet), a folder of such files whose names tell train, val and
    test apart, or a folder of text files whose folders are the labels; relative to the working directory."""
    text: str = "text"
    """Field that holds the text."""
    label: str = "label"
    """Field that holds the label."""
    classes: tuple[str | int, ...]
    """Values of the label, in the order of the model's outputs."""
    encoding: str | None = None
    """Of files that are not UTF-8, such as cp1252; quarantine.jsonl says what they look like."""
    read_as: Literal["text"] | None = None
    """`text` reads files as text though they look like records."""
    damaged_allowed: Count = 0
    """So many records may be unreadable; they are skipped and named in quarantine.jsonl."""
    bucket_batches: PositiveInt = 1
    """So many batches' texts are sorted by length and dealt out again, to pad less; 1 = in their shuffled order."""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes is {list(self.classes)}, but it should be two or more different labels")
        return self


class ClassificationSection(Section):
    """How much of the held-out texts is classified, and how many at a time."""

    batch_size: PositiveInt = 8
    """Texts per rank and forward pass."""
    limit_documents: PositiveInt | None = None
    """Evaluate only the first so many texts of each split; `null` = all."""


class SequenceClassificationRun(PretrainedRun):
    """A RoBERTa made long that learns to classify texts (Longformer paper, section 6)."""

    words: ClassVar[TaskWords] = TaskWords(
        bits="bits_per_text", bits_short="bits/text", scores=("accuracy", "macro_f1"), score_short="accuracy"
    )

    task: Literal["sequence_classification"]
    """What is learned: here, to classify texts."""
    data: LabelledSection
    """The texts and their labels."""
    evaluation: ClassificationSection = ClassificationSection()
    """How held-out texts are classified after each phase."""
