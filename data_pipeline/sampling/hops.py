"""Sequences for learning to answer from several paragraphs, and to tell the sentences that the answer rests on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest
from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.shuffle import Piece
from data_pipeline.sampling.spans import MAX_SPANS
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.corpora import TEXT, pieces_field, spans_field
from data_pipeline.sources.hotpotqa import FACTS, KIND, PARAGRAPHS, VERDICTS, Paragraph
from data_pipeline.sources.questions import ANSWERS, ID, QUESTION

NOTHING = -1
"""Stands behind the last place of a sentence or paragraph."""


@dataclass(frozen=True)
class HopMarks:
    """The tokens around the parts of a sequence."""

    begin: int
    end: int
    question: tuple[int, int]
    """Before and behind the question."""
    title: tuple[int, int]
    """Before and behind the title of every paragraph; the first one scores the paragraph."""
    sentence: int
    """Behind every sentence, which it scores."""


@dataclass(frozen=True)
class HopExample:
    """A question with paragraphs; token ids are 1-D int64, without special tokens."""

    identifier: str
    question: str
    answer: str
    kind: str
    paragraphs: tuple[Paragraph, ...]
    facts: tuple[tuple[str, int], ...]
    """The title and the number of each sentence that the answer rests on, also of those that are not read."""
    question_ids: np.ndarray
    lines: tuple[tuple[np.ndarray, ...], ...]
    """The token ids of the title and of each sentence of every paragraph."""
    spans: tuple[tuple[int, int], ...]
    """The first and last token, counted over all lines, of every place at which the answer is marked."""

    @classmethod
    def of(cls, example: Example) -> "HopExample":
        """Returns a prepared example."""
        fields = example.fields
        paragraphs = tuple(Paragraph(title, tuple(sentences)) for title, sentences in fields[PARAGRAPHS])
        ends = np.cumsum(fields[pieces_field(TEXT)])[:-1]
        lines = iter(np.split(example.tokens[TEXT].astype(np.int64), ends))
        return cls(
            fields[ID],
            fields[QUESTION],
            fields[ANSWERS][0],
            fields[KIND],
            paragraphs,
            tuple((title, sentence) for title, sentence in fields[FACTS]),
            example.tokens[QUESTION].astype(np.int64),
            tuple(tuple(next(lines) for _ in (title, *sentences)) for title, sentences in paragraphs),
            tuple((first, last) for first, last in fields[spans_field(TEXT)]),
        )

    @property
    def tokens(self) -> int:
        """How many tokens are read where all fit, special ones included."""
        return (
            4 + len(self.question_ids) + sum(1 + sum(1 + len(line) for line in paragraph) for paragraph in self.lines)
        )


class HopSequences(LabelledSequences):
    """One question per sequence: {"input_ids", "attention_mask", "global_attention_mask"}, all (length,) int64;
    "sentence_positions" and "sentence_labels", (sentences,), "paragraph_positions" and "paragraph_labels",
    (paragraphs,), where the token of each stands and whether the answer rests on it; "start_positions" and
    "end_positions", (places,), of the answer, the first token where it is yes or no; "answer_type", no dimension: 0 a
    piece of the paragraphs, 1 yes, 2 no. All int64.

    A sequence is `<s> [question] question [/question]`, then for every paragraph `<t> title </t> sentence [s] ...`, and
    `</s>`; what does not fit is left out at the end. Question, title and sentence tokens are global. A damaged example
    has the answer type IGNORED, which does not count. Arguments and errors not named here are as in
    `LabelledSequences`.

    Args:
        marks: the special tokens.
    """

    def __init__(self, split: Split, *, marks: HopMarks, sequence_length: int, seed: int) -> None:
        split.check_has(QUESTION, "holds no questions: prepare it as HotpotQA")
        super().__init__(
            split,
            text=TEXT,
            label=ANSWERS,
            problem="single_label",
            classes=(),
            sequence_length=sequence_length,
            seed=seed,
        )
        self.fingerprint = digest("hops", self.fingerprint)
        places = ("start_positions", "end_positions")
        self.padding = {
            **self.padding,
            **dict.fromkeys((*places, "sentence_labels", "paragraph_labels"), IGNORED),
            **dict.fromkeys(("sentence_positions", "paragraph_positions"), NOTHING),
        }
        self._marks = marks

    def sequence(self, position: int) -> NamedArrays:
        piece = self._piece(position)
        read = self._split.read(piece.shard, piece.example)
        if read is None:
            nothing = np.array([IGNORED])
            ids = np.array([self._marks.begin, self._marks.end])
            return {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "global_attention_mask": np.zeros_like(ids),
                **dict.fromkeys(("sentence_positions", "paragraph_positions"), np.array([NOTHING])),
                **dict.fromkeys(("sentence_labels", "paragraph_labels"), nothing),
                **dict.fromkeys(("start_positions", "end_positions"), nothing),
                "answer_type": np.array(IGNORED),
            }
        return self._arrays_of(HopExample.of(read))

    def check_room(self) -> None:
        """Raises DataError where a question leaves no room for paragraphs."""
        for shard in range(len(self._split.shards)):
            most = int(self._split.lengths(shard, QUESTION).max(initial=0))
            if 2 * most > self._sequence_length:
                raise DataError(
                    f"{self.name}: a question has {most:,} tokens, more than half of a sequence of "
                    f"{self._sequence_length:,}: use longer ones"
                )

    def lengths(self) -> list[int]:
        """Returns about how many tokens the examples of the split have, those between their parts left out."""
        shards = range(len(self._split.shards))
        return [int(each) for shard in shards for each in self._split.lengths(shard, TEXT)]

    def _beside(self, piece: Piece) -> int:
        return 4 + int(self._split.lengths(piece.shard, QUESTION)[piece.example])

    def _arrays_of(self, example: HopExample) -> NamedArrays:
        marks = self._marks
        ids = [marks.begin, marks.question[0], *example.question_ids, marks.question[1]]
        is_global = [1] * len(ids)
        moved: dict[int, int] = {}
        sentences: list[tuple[int, int]] = []
        paragraphs: list[tuple[int, int]] = []
        golden = {title for title, _ in example.facts}
        token = 0
        for (title, _), lines in zip(example.paragraphs, example.lines, strict=True):
            for sentence, line in enumerate(lines, start=-1):
                before, behind = ([marks.title[0]], [marks.title[1]]) if sentence < 0 else ([], [marks.sentence])
                if len(ids) + len(before) + len(line) + len(behind) >= self._sequence_length:
                    break
                if sentence < 0:
                    paragraphs.append((len(ids), int(title in golden)))
                else:
                    sentences.append((len(ids) + len(line), int((title, sentence) in example.facts)))
                is_global += [*[1] * len(before), *[0] * len(line), int(sentence >= 0)]
                moved |= {token + place: len(ids) + len(before) + place for place in range(len(line))}
                ids += [*before, *line, *behind]
                token += len(line)
            else:
                continue
            break
        ids.append(marks.end)
        is_global.append(0)
        if example.answer in VERDICTS:
            places = [(0, 0)]
        else:
            places = [(moved[first], moved[last]) for first, last in example.spans if last in moved]
        return {
            "input_ids": np.array(ids),
            "attention_mask": np.ones(len(ids), dtype=np.int64),
            "global_attention_mask": np.array(is_global),
            **_pair(sentences, "sentence_positions", "sentence_labels", (NOTHING, IGNORED)),
            **_pair(paragraphs, "paragraph_positions", "paragraph_labels", (NOTHING, IGNORED)),
            **_pair(places[:MAX_SPANS], "start_positions", "end_positions", (IGNORED, IGNORED)),
            "answer_type": np.array(1 + VERDICTS.index(example.answer) if example.answer in VERDICTS else 0),
        }


def _pair(pairs: Sequence[tuple[int, int]], first: str, second: str, otherwise: tuple[int, int]) -> NamedArrays:
    left, right = np.array(pairs or [otherwise], dtype=np.int64).T
    return {first: left, second: right}
