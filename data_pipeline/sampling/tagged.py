"""Sequences for learning the labels of words: a text each, and the class of every word at the first of its pieces."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.sampling.base import digest
from data_pipeline.sampling.labelled import LabelledSequences, LongDocuments
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.corpora import pieces_field


class TaggedSequences(LabelledSequences):
    """One text of words per sequence: {"input_ids", "attention_mask", "labels"}, all (length,) int64.

    A label is the number of the class of the word whose first piece stands there, IGNORED at the other pieces and at
    the begin and end token. Arguments, errors, and what is read of longer texts are as in `LabelledSequences`.
    """

    def __init__(
        self,
        split: Split,
        *,
        text: str,
        label: str,
        classes: Sequence[str],
        sequence_length: int,
        seed: int,
        long_documents: LongDocuments = "windows",
    ) -> None:
        super().__init__(
            split,
            text=text,
            label=label,
            problem="single_label",
            classes=classes,
            sequence_length=sequence_length,
            seed=seed,
            long_documents=long_documents,
        )
        self.fingerprint = digest("tagged", self.fingerprint)
        self.padding = {**self.padding, "labels": IGNORED}

    def _no_label(self) -> np.ndarray:
        return np.full(2, IGNORED)

    def _label_of(self, example: Example, shown: slice) -> np.ndarray:
        numbers = np.array([self._number_of(label) for label in self._value_of(example.fields)], dtype=np.int64)
        pieces = np.array(example.fields[pieces_field(self._text)], dtype=np.int64)
        labels = np.full(len(example.tokens[self._text]), IGNORED)
        labels[(np.cumsum(pieces) - pieces)[pieces > 0]] = numbers[pieces > 0]
        return np.concatenate([[IGNORED], labels[shown], [IGNORED]])
