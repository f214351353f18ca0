"""The labelled texts of a run: sequences to learn from, and held-out texts to classify."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT
from data_pipeline.sources.labelled import LABEL, labelled
from launcher.tasks.data import PretrainedData, RunCorpus
from launcher.tasks.sequence_classification.config import SequenceClassificationRun


@dataclass(frozen=True)
class LabelledText:
    """A held-out text as the model reads it, and its class."""

    input_ids: np.ndarray
    """(length,) int64."""
    label: int


@dataclass(frozen=True)
class SequenceClassificationData(PretrainedData[SequenceClassificationRun]):
    """Texts with a label each; see `launcher.tasks.data.TaskData`."""

    def corpora(self) -> list[RunCorpus]:
        section = self.config.data
        corpus = partial(
            labelled,
            section.source,
            texts={TEXT: section.text},
            fields={LABEL: section.label},
            encoding=section.encoding,
            read_as=section.read_as,
        )
        return [
            RunCorpus(self.directory, corpus, self.config.model.source, section.damaged_allowed, section.special_tokens)
        ]

    def sequences(self, index: int) -> LabelledSequences:
        return self._sequences("train", self.config.phases[index].sequence_length, self.seed(index))

    @property
    def bucket_batches(self) -> int:
        return self.config.data.bucket_batches

    def held_out(self, split: str, *, length: int, limit: int | None) -> list[LabelledText]:
        """Returns the first `limit` texts of a split, or all, of which the model reads `length` tokens.

        Raises:
            DataError: prepared texts are missing or damaged, or have a label that is none of the classes.
        """
        sequences = self._sequences(split, length, seed=0)
        shards = enumerate(PreparedData.open(self.directory).split(split).shards)
        examples = (sequences.example(shard, number) for shard, record in shards for number in range(record.examples))
        return [LabelledText(each["input_ids"], int(each["labels"])) for each in islice(examples, limit)]

    @property
    def padding(self) -> int:
        """The token that fills up shorter texts of a batch."""
        return PreparedData.open(self.directory).manifest.tokenizer.special_tokens.padding

    def decoder(self) -> Callable[[list[int]], str]:
        """Returns what turns token ids into text without special tokens."""
        data = PreparedData.open(self.directory)
        special = set(data.manifest.tokenizer.special_tokens.all)
        return lambda ids: data.tokenizer.decode(token for token in ids if token not in special)

    def _sequences(self, split: str, length: int, seed: int) -> LabelledSequences:
        return LabelledSequences(
            PreparedData.open(self.directory).split(split),
            text=TEXT,
            label=LABEL,
            classes=self.config.data.classes,
            sequence_length=length,
            seed=seed,
        )
