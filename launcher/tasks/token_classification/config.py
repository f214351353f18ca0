"""The sections of a run file for labelling words: an encoder made long, and words with a label each."""

from typing import Literal, Self

from pydantic import model_validator

from launcher.config.run_config import TaskWords
from launcher.tasks.sections import ClassesRun, ClassesSection


class TaggedSection(ClassesSection):
    """Which words are learned, from records with two lists or from columns with a word a line (CoNLL)."""

    words: str | int = "words"
    """Of records, the field that holds the list of words; of columns, the number of the one that holds the word: 1 is
    the first, -1 the last."""
    labels: str | int = "labels"
    """The same of the labels, of which there are as many as words."""
    long_documents: Literal["truncate_end", "truncate_begin", "windows"] = "windows"
    """What is read of texts that are longer than the phase's sequences: all in `windows`, of which training shows
    another one in every epoch; or the beginning (`truncate_end`) or the end (`truncate_begin`) alone."""

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if isinstance(self.words, int) != isinstance(self.labels, int):
            raise ValueError(
                f"words is {self.words!r} and labels is {self.labels!r}, but both should be fields of records, or "
                "both numbers of columns"
            )
        if 0 in (self.words, self.labels):
            raise ValueError("words and labels count columns from 1; -1 is the last")
        if self.words == self.labels:
            raise ValueError(f"words and labels are both {self.words}, but one holds the words and one their labels")
        return self


class TokenClassificationRun(ClassesRun):
    """An encoder made long that learns to label words: names, parts of speech, mentions."""

    task: Literal["token_classification"]
    """What is learned: here, to label words."""
    data: TaggedSection
    """The words and their labels."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_label",
            bits_short="bits/label",
            scores=("micro_f1", "accuracy"),
            score_short="F1",
            # Those that labels of entities and others have alike: which they are is known from the examples.
            metrics=dict.fromkeys(("micro_f1", "macro_f1", "macro_precision", "macro_recall", "accuracy"), "max"),
        )
