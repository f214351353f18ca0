"""What the data of tasks shares whose answers are pieces of texts: windows to learn from, and held-out questions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, Generic, TypeVar

import numpy as np

from data_pipeline.sampling.questions import TextInputs
from data_pipeline.sampling.spans import SpanSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.shard import Example
from data_pipeline.sources.corpora import TEXT, spans_field
from data_pipeline.sources.questions import ANSWERS, CONTEXT, ID, QUESTION
from data_pipeline.tokenizers.tokenizer import TextFormat
from launcher.tasks.examples import LabelledData
from launcher.tasks.sections import AnswersRun
from longformer.inference.queries import longest_query

Config = TypeVar("Config", bound=AnswersRun)


@dataclass(frozen=True)
class AskedQuestion:
    """A held-out question with its context, whole."""

    identifier: str
    question: str
    context: str
    answers: tuple[str, ...]
    """None where the context has none."""
    question_ids: np.ndarray
    """1-D int64, without special tokens, as those of the context."""
    context_ids: np.ndarray
    spans: tuple[tuple[int, int], ...]
    """The first and the last token of every place at which an answer stands."""

    @classmethod
    def of(cls, example: Example) -> "AskedQuestion":
        """Returns a prepared example."""
        fields = example.fields
        question, context = (example.tokens[name].astype(np.int64) for name in (QUESTION, TEXT))
        spans = tuple((first, last) for first, last in fields[spans_field(TEXT)])
        return cls(fields[ID], fields[QUESTION], fields[CONTEXT], tuple(fields[ANSWERS]), question, context, spans)


@dataclass(frozen=True)
class AnswerData(LabelledData[Config], Generic[Config]):
    """Questions about texts."""

    learns_none: ClassVar[bool] = True
    """Whether windows teach that there is no answer here, so that pieces of windows are compared by how much more
    probable than that they are; else by their logits, and windows without an answer teach nothing."""

    def around(self) -> TextFormat:
        """Returns what stands around a question and its context."""
        around = PreparedData.open(self.directory).tokenizer.format
        types = self.source_settings().get("type_vocab_size", 2)
        return around if types > 1 else replace(around, second_type=0)

    def labelled(self, split: str, length: int, seed: int) -> SpanSequences:
        section, around = self.config.data, self.around()
        inputs = TextInputs(around, "question", longest_query(length), has_types=bool(around.second_type))
        return SpanSequences(
            PreparedData.open(self.directory).split(split),
            inputs=inputs,
            overlap=section.overlap,
            learns_none=self.learns_none,
            sequence_length=length,
            seed=seed,
            long_documents=section.long_documents,
        )

    def held_out(self, split: str, *, limit: int | None = None) -> list[AskedQuestion]:
        """Returns the first `limit` questions of a split, or all.

        Raises:
            DataError: prepared questions are missing or damaged.
        """
        examples = PreparedData.open(self.directory).split(split).examples()
        return [AskedQuestion.of(each) for each in islice(examples, limit)]

    def offsets(self) -> Callable[[str], list[tuple[int, int]]]:
        """Returns what tells of a text where each of its tokens begins and ends, in characters."""
        return PreparedData.open(self.directory).tokenizer.offsets

    def lengths(self, split: str) -> list[int]:
        """Returns how many tokens the contexts of a split have, with their questions."""
        return self.labelled(split, self.config.phases[-1].sequence_length, seed=0).lengths()
