"""The questions of a run: sequences to learn from, and held-out questions to answer."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from data_pipeline.sampling.hops import HopExample, HopMarks, HopSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import Corpus
from data_pipeline.sources.hotpotqa import hotpotqa
from launcher.runs.run import Run
from launcher.tasks.examples import LabelledData
from launcher.tasks.hotpotqa.config import HotpotQARun
from longformer.inference.queries import HOP_TOKENS


@dataclass(frozen=True)
class HotpotQAData(LabelledData[HotpotQARun]):
    """Questions with paragraphs; see `launcher.tasks.data.TaskData`."""

    is_words: ClassVar[bool] = True
    added_tokens: ClassVar[tuple[str, ...]] = HOP_TOKENS

    def corpus(self) -> Corpus:
        section = self.config.data
        selected = None if section.selected is None else Run.open(section.selected).newest_result()
        return hotpotqa(section.source, selected=selected, encoding=section.encoding)

    def labelled(self, split: str, length: int, seed: int) -> HopSequences:
        return HopSequences(
            PreparedData.open(self.directory).split(split), marks=self.marks(), sequence_length=length, seed=seed
        )

    def marks(self) -> HopMarks:
        """Returns the tokens around the parts of a sequence."""
        tokenizer = PreparedData.open(self.directory).tokenizer
        question, end_question, title, end_title, sentence = map(tokenizer.id_of, HOP_TOKENS)
        special = tokenizer.special
        return HopMarks(special.begin, special.end, (question, end_question), (title, end_title), sentence)

    def held_out(self, split: str, *, limit: int | None = None) -> list[HopExample]:
        """Returns the first `limit` questions of a split, or all.

        Raises:
            DataError: prepared questions are missing or damaged.
        """
        examples = PreparedData.open(self.directory).split(split).examples()
        return [HopExample.of(each) for each in islice(examples, limit)]

    def line_offsets(self) -> Callable[[str], list[tuple[int, int]]]:
        """Returns what tells of a title or sentence where each of its tokens begins and ends, in characters."""
        return PreparedData.open(self.directory).tokenizer.word_offsets

    def lengths(self, split: str) -> list[int]:
        """Returns about how many tokens the paragraphs of a split have."""
        return self.labelled(split, self.config.phases[-1].sequence_length, seed=0).lengths()
