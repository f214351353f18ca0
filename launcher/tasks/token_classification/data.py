"""The words of a run and their labels: sequences to learn from, and held-out texts to label."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.tagged import TaggedSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT, Corpus
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.tagged import tagged
from launcher.tasks.classes import ClassesData
from launcher.tasks.token_classification.config import TokenClassificationRun


@dataclass(frozen=True)
class TaggedText:
    """A held-out text and the labels of its words; those of which the tokenizer makes nothing are none of them."""

    text: list[int]
    """Token ids without special ones."""
    firsts: np.ndarray
    """(words,) int: where the first token of each word stands."""
    labels: np.ndarray
    """(words,) int: the number of the class of each."""

    @property
    def words(self) -> list[tuple[int, ...]]:
        """The token ids of each word."""
        ends = [*self.firsts[1:], len(self.text)]
        return [tuple(self.text[start:end]) for start, end in zip(self.firsts, ends, strict=True)]


@dataclass(frozen=True)
class TokenClassificationData(ClassesData[TokenClassificationRun]):
    """Texts of words with a label each; see `launcher.tasks.data.TaskData`."""

    is_words: ClassVar[bool] = True

    def corpus(self) -> Corpus:
        section = self.config.data
        return tagged(section.source, words=section.words, labels=section.labels, encoding=section.encoding)

    def held_out(self, split: str, *, limit: int | None = None) -> list[TaggedText]:
        """Returns the first `limit` texts of a split, or all, whole.

        Raises:
            DataError: prepared texts are missing or damaged, or have a label that is none of the classes.
        """
        found = []
        for example in self.whole(split, limit):
            labels = example["labels"][1:-1]
            firsts = np.flatnonzero(labels != IGNORED)
            found.append(TaggedText(example["input_ids"][1:-1].tolist(), firsts, labels[firsts]))
        return found

    def labelled(self, split: str, length: int, seed: int) -> TaggedSequences:
        return TaggedSequences(
            PreparedData.open(self.directory).split(split),
            text=TEXT,
            label=LABEL,
            classes=self.classes(),
            sequence_length=length,
            seed=seed,
            long_documents=self.config.data.long_documents,
        )
