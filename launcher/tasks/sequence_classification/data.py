"""The labelled texts of a run: sequences to learn from, and held-out texts to classify."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.sampling.questions import QUESTION, QuestionSequences, TextInputs
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT, Corpus
from data_pipeline.sources.hyperpartisan import hyperpartisan
from data_pipeline.sources.labelled import LABEL, labelled
from data_pipeline.tokenizers.tokenizer import TextFormat
from launcher.tasks.classes import ClassesData
from launcher.tasks.sequence_classification.config import SequenceClassificationRun
from longformer.inference.queries import longest_query


@dataclass(frozen=True)
class LabelledText:
    """A held-out text and its label."""

    text: np.ndarray
    """Token ids without special ones, as those of the question."""
    question: np.ndarray
    """Empty where nothing is asked."""
    tokens: int
    """Of a sequence that holds all of it."""
    label: np.ndarray
    """As in `LabelledSequences`."""


@dataclass(frozen=True)
class SequenceClassificationData(ClassesData[SequenceClassificationRun]):
    """Texts with a label each; see `launcher.tasks.data.TaskData`."""

    def corpus(self) -> Corpus:
        section = self.config.data
        if section.layout != "records":
            return hyperpartisan(section.source, "clean" if section.layout == "hyperpartisan_clean" else "published")
        return labelled(
            section.source,
            texts={TEXT: section.text} | ({} if section.question is None else {QUESTION: section.question}),
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

    def check(self) -> list[str]:
        notes = super().check()
        if self.is_prepared and self.config.data.question is not None:
            shortest = min(phase.sequence_length for phase in self.config.phases)
            most = longest_query(shortest)
            if cut := sum(each > most for each in self._lengths("train", QUESTION)):
                notes.append(
                    f"{cut:,} training questions have more than {most:,} tokens, half of a sequence of {shortest:,}: "
                    "their end is left out"
                )
        return notes

    def lengths(self, split: str) -> list[int]:
        """Returns how many tokens the sequences have that hold the texts of a split whole."""
        texts, inputs = self._lengths(split, TEXT), self.inputs(self.config.phases[-1].sequence_length)
        questions = [0] * len(texts) if self.config.data.question is None else self._lengths(split, QUESTION)
        return [text + inputs.beside(question) for text, question in zip(texts, questions, strict=True)]

    def _lengths(self, split: str, name: str) -> list[int]:
        opened = PreparedData.open(self.directory).split(split)
        return [int(each) for shard in range(len(opened.shards)) for each in opened.lengths(shard, name)]

    def inputs(self, length: int) -> TextInputs:
        """Returns how the model reads texts, and questions beside them, in sequences of `length` tokens."""
        section, prepared = self.config.data, PreparedData.open(self.directory)
        if section.question is None:
            special = prepared.manifest.tokenizer.special_tokens
            return TextInputs(TextFormat((special.begin,), (), (special.end,)), section.global_tokens)
        around = prepared.tokenizer.format
        types = self.source_settings().get("type_vocab_size", 2)
        return TextInputs(around, section.global_tokens, longest_query(length), has_types=types > 1)

    def held_out(self, split: str, *, limit: int | None = None) -> list[LabelledText]:
        """Returns the first `limit` texts of a split, or all, whole.

        Raises:
            DataError: prepared texts are missing or damaged, or have a label that is none of the classes.
        """
        inputs, nothing = self.inputs(self.config.phases[-1].sequence_length), np.empty(0, dtype=np.int64)
        found = []
        for each in self.whole(split, limit):
            text, question = each["input_ids"][1:-1], each.get(QUESTION, nothing)
            found.append(LabelledText(text, question, len(text) + inputs.beside(len(question)), each["labels"]))
        return found

    def labelled(self, split: str, length: int, seed: int) -> LabelledSequences:
        section = self.config.data
        opened = PreparedData.open(self.directory).split(split)
        options: dict[str, Any] = {
            "text": TEXT,
            "label": LABEL,
            "problem": section.problem,
            "classes": self.classes(),
            "sequence_length": length,
            "seed": seed,
            "long_documents": section.long_documents,
        }
        if section.question is None and section.global_tokens == "first":
            return LabelledSequences(opened, **options)
        question = None if section.question is None else QUESTION
        return QuestionSequences(opened, question=question, inputs=self.inputs(length), **options)
