"""The labelled texts of a run: sequences to learn from, and held-out texts to classify."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT, Corpus
from data_pipeline.sources.hyperpartisan import hyperpartisan
from data_pipeline.sources.labelled import LABEL, labelled
from launcher.tasks.classes import ClassesData
from launcher.tasks.data import RunCorpus
from launcher.tasks.sequence_classification.config import SequenceClassificationRun


@dataclass(frozen=True)
class LabelledText:
    """A held-out text and its label."""

    text: list[int]
    """Token ids without special ones."""
    label: np.ndarray
    """As in `LabelledSequences`."""


@dataclass(frozen=True)
class SequenceClassificationData(ClassesData[SequenceClassificationRun]):
    """Texts with a label each; see `launcher.tasks.data.TaskData`."""

    def corpora(self) -> list[RunCorpus]:
        section = self.config.data
        return [
            RunCorpus(
                self.directory,
                self._corpus,
                self.config.model.source,
                section.damaged_allowed,
                section.special_tokens,
            )
        ]

    def _corpus(self) -> Corpus:
        section = self.config.data
        if section.layout != "records":
            return hyperpartisan(section.source, "clean" if section.layout == "hyperpartisan_clean" else "published")
        return labelled(
            section.source,
            texts={TEXT: section.text},
            fields={LABEL: section.label},
            labels={LABEL: section.problem},
            encoding=section.encoding,
            read_as=section.read_as,
        )

    def balanced_weights(self, counts: Sequence[int]) -> list[float]:
        """Returns scikit-learn's for single labels; where several may hold, texts without a class / texts with it."""
        if self.config.data.problem == "single_label":
            return super().balanced_weights(counts)
        texts = sum(shard.examples for shard in PreparedData.open(self.directory).manifest.splits["train"])
        return [max(texts - count, 1) / count for count in counts]

    def held_out(self, split: str, *, limit: int | None = None) -> list[LabelledText]:
        """Returns the first `limit` texts of a split, or all, whole.

        Raises:
            DataError: prepared texts are missing or damaged, or have a label that is none of the classes.
        """
        return [
            LabelledText(each["input_ids"][1:-1].tolist(), each["labels"]) for each in self.whole(split, limit)
        ]  # fmt: skip

    def labelled(self, split: str, length: int, seed: int) -> LabelledSequences:
        section = self.config.data
        return LabelledSequences(
            PreparedData.open(self.directory).split(split),
            text=TEXT,
            label=LABEL,
            problem=section.problem,
            classes=self.classes(),
            sequence_length=length,
            seed=seed,
            long_documents=section.long_documents,
        )
