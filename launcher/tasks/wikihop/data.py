"""The queries of a run: sequences to learn from, and held-out queries to answer."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from data_pipeline.sampling.candidates import CandidateExample, CandidateSequences, Marks
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import Corpus
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.wikihop import CANDIDATES, QUERY, wikihop
from launcher.tasks.examples import LabelledData
from launcher.tasks.wikihop.config import WikihopRun
from longformer.inference.queries import CANDIDATE_TOKENS, normalized


@dataclass(frozen=True)
class WikihopData(LabelledData[WikihopRun]):
    """Queries with candidates and documents; see `launcher.tasks.data.TaskData`."""

    is_words: ClassVar[bool] = True
    added_tokens: ClassVar[tuple[str, ...]] = CANDIDATE_TOKENS

    def corpus(self) -> Corpus:
        section = self.config.data
        return wikihop(
            section.source,
            normalized=normalized,
            benchmark=section.benchmark,
            masked=section.masked,
            encoding=section.encoding,
        )

    def labelled(self, split: str, length: int, seed: int) -> CandidateSequences:
        return CandidateSequences(
            PreparedData.open(self.directory).split(split),
            marks=self.marks(),
            sequence_length=length,
            seed=seed,
            long_documents=self.config.data.long_documents,
            window_scores=self.config.data.window_scores,
        )

    def marks(self) -> Marks:
        """Returns the tokens around the parts of a sequence."""
        tokenizer = PreparedData.open(self.directory).tokenizer
        question, end_question, candidate, end_candidate = map(tokenizer.id_of, CANDIDATE_TOKENS)
        special = tokenizer.special
        return Marks(special.begin, special.end, (question, end_question), (candidate, end_candidate))

    def held_out(self, split: str, *, limit: int | None = None) -> list[CandidateExample]:
        """Returns the first `limit` examples of a split, or all.

        Raises:
            DataError: prepared examples are missing or damaged.
        """
        examples = PreparedData.open(self.directory).split(split).examples()
        return [CandidateExample.of(each) for each in islice(examples, limit)]

    def lengths(self, split: str) -> list[int]:
        """Returns about how many tokens the queries of a split have, with their candidates and documents."""
        return self.labelled(split, self.config.phases[-1].sequence_length, seed=0).lengths()

    def most_windows(self, index: int) -> int:
        """Returns in how many windows a phase reads an example at most; 1 until it is known."""
        if not self.is_prepared:
            return 1
        return self.labelled("train", self.config.phases[index].sequence_length, seed=0).most_windows()

    def answers(self) -> Counter[tuple[str, str]]:
        """Returns how often every relation has every answer in training.

        Raises:
            DataError: prepared examples are missing or damaged.
        """
        fields = (example.fields for example in PreparedData.open(self.directory).split("train").examples())
        return Counter((relation_of(each[QUERY]), each[CANDIDATES][each[LABEL]]) for each in fields)


def relation_of(query: str) -> str:
    """Returns the relation that a query asks for: `country` in `country sms braunschweig`."""
    return query.split(maxsplit=1)[0]
