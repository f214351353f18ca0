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
from longformer.errors import LongformerError


@dataclass(frozen=True)
class LabelledText:
    """A held-out text and its label."""

    text: list[int]
    """Token ids without special ones."""
    label: np.ndarray
    """As in `LabelledSequences`."""


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
            labels={LABEL: section.problem},
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

    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, none of a regression.

        Raises:
            DataError: the training examples decide, and are not prepared yet or damaged.
            LongformerError: the run file has other classes than the examples.
        """
        named = self.config.data.class_names
        if named == ():
            return ()
        found = tuple(self._counts("train"))
        if named is None:
            return found
        if unknown := [name for split in ("train", "validation", "test") for name in self._counts(split)
                       if name not in named]:  # fmt: skip
            raise LongformerError(
                f"{self.directory} has the label {unknown[0]!r}, which is none of data.classes ({', '.join(named)})"
            )
        return named

    def class_weights(self) -> list[float] | None:
        """Returns how much each class counts in the loss; None: all the same; errors as in `classes`.

        Balanced weights of a single label are those of scikit-learn: texts / (classes x texts of the class). Where
        several may hold, that of a class is texts without it / texts with it.

        Raises:
            LongformerError: the run file has weights of other classes, or a class that no example has.
        """
        asked, names = self.config.data.class_weights, self.classes()
        if asked is None:
            return None
        if asked != "balanced":
            if set(asked) != set(names):
                raise LongformerError(f"data.class_weights names {list(asked)}, but the classes are {list(names)}")
            return [asked[name] for name in names]
        counts = [self._counts("train").get(name, 0) for name in names]
        if 0 in counts:
            raise LongformerError(
                f"data.class_weights is balanced, but no training example has the label {names[counts.index(0)]!r}"
            )
        if self.config.data.problem == "single_label":
            return [sum(counts) / (len(counts) * count) for count in counts]
        texts = sum(shard.examples for shard in PreparedData.open(self.directory).manifest.splits["train"])
        return [max(texts - count, 1) / count for count in counts]

    def held_out(self, split: str, *, limit: int | None) -> list[LabelledText]:
        """Returns the first `limit` texts of a split, or all, whole.

        Raises:
            DataError: prepared texts are missing or damaged, or have a label that is none of the classes.
        """
        sequences = self._sequences(split, self.config.model.max_length, seed=0)
        shards = enumerate(PreparedData.open(self.directory).split(split).shards)
        examples = (sequences.whole(shard, number) for shard, record in shards for number in range(record.examples))
        return [LabelledText(each["input_ids"][1:-1].tolist(), each["labels"]) for each in islice(examples, limit)]

    def decoder(self) -> Callable[[list[int]], str]:
        """Returns what turns token ids of a text into the text."""
        return PreparedData.open(self.directory).tokenizer.decode

    def _counts(self, split: str) -> dict[str, int]:
        return dict(PreparedData.open(self.directory).manifest.corpus.classes[LABEL].get(split, {}))

    def _sequences(self, split: str, length: int, seed: int) -> LabelledSequences:
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
