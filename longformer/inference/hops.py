"""How questions are answered from several paragraphs: what is read, which piece answers, and what it rests on.

Evaluation and prediction share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longformer.errors import LongformerError
from longformer.inference.answering import best_spans
from longformer.inference.classification import IDS, Inputs, Reading
from longformer.inference.queries import HOP_TOKENS
from longformer.inference.texts import added_ids

VERDICTS = ("yes", "no")
"""Answers that are no pieces of the paragraphs."""
MOST_PARAGRAPHS, LEAST_LOGIT = 5, -3.0
"""Those that a second stage reads (Longformer paper, appendix, HotpotQA)."""
_PLACES = ("sentence_positions", "paragraph_positions")


@dataclass(frozen=True)
class HopReading(Reading):
    """What a model that answers from several paragraphs reads of them, and how long a piece may be."""

    longest_answer: int = 20
    """Tokens."""


@dataclass(frozen=True)
class HopMarks:
    """The tokens around the parts of what is read."""

    begin: int
    end: int
    question: tuple[int, int]
    title: tuple[int, int]
    sentence: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Returns those of a tokenizer.

        Raises:
            LongformerError: it has no tokens for this.
        """
        ids = added_ids(tokenizer, HOP_TOKENS, learned="on HotpotQA")
        text = tokenizer.encode("a").ids
        return cls(text[0], text[-1], (ids[0], ids[1]), (ids[2], ids[3]), ids[4])


class Line(NamedTuple):
    """A title or a sentence that is read."""

    paragraph: int
    sentence: int
    """-1: the title."""
    place: int
    """Where its first token stands."""
    tokens: int


class HopInputs(NamedTuple):
    """What is read of a question and its paragraphs."""

    inputs: Inputs
    lines: list[Line]


class HopAnswer(NamedTuple):
    """What is found for a question."""

    kind: int
    """0: a piece of the paragraphs; else 1 + its number in VERDICTS."""
    line: Line | None
    """Holds the best piece; None where nothing is read."""
    first: int
    """Its first and last token, counted in the line."""
    last: int
    score: float
    """The probability of the kind, times, of a piece, those of its first and last token."""
    facts: list[tuple[int, int]]
    """The (paragraph, sentence) numbers that it rests on, of two paragraphs where so many are read."""
    paragraphs: dict[int, float]
    """The logit of each paragraph that is read."""


def hop_inputs(
    reading: HopReading,
    question: Sequence[int] | np.ndarray,
    paragraphs: Sequence[Sequence[Sequence[int] | np.ndarray]],
    marks: HopMarks,
) -> HopInputs:
    """Returns what is read of a question; what does not fit is left out at the end.

    Args:
        reading: says how much.
        question: token ids without special ones.
        paragraphs: the token ids of the title and of each sentence of every paragraph.
        marks: the special tokens.

    Raises:
        LongformerError: the question is longer than half of what is read.
    """
    if 2 * len(question) > reading.length:
        raise LongformerError(
            f"the question has {len(question):,} tokens, more than half of the {reading.length:,} that are read; "
            "shorten it"
        )
    ids = [marks.begin, marks.question[0], *question, marks.question[1]]
    is_global = [1] * len(ids)
    lines: list[Line] = []
    places: dict[str, list[int]] = {name: [] for name in _PLACES}
    units = (
        (number, sentence, line) for number, each in enumerate(paragraphs) for sentence, line in enumerate(each, -1)
    )
    for number, sentence, line in units:
        is_title = sentence < 0
        before, behind = ([marks.title[0]], [marks.title[1]]) if is_title else ([], [marks.sentence])
        if len(ids) + len(before) + len(line) + len(behind) >= reading.length:
            break
        lines.append(Line(number, sentence, len(ids) + len(before), len(line)))
        places[_PLACES[is_title]].append(len(ids) if is_title else len(ids) + len(line))
        ids += [*before, *line, *behind]
        is_global += [*[1] * len(before), *[0] * len(line), int(not is_title)]
    inputs = {IDS: [*ids, marks.end], "global_attention_mask": [*is_global, 0]}
    return HopInputs({**inputs, **{name: each or [-1] for name, each in places.items()}}, lines)


@torch.no_grad()
def hop_answers(
    model: Any, questions: Sequence[HopInputs], *, longest: int, padding: int, device: torch.device | str = "cpu"
) -> list[HopAnswer]:
    """Returns what is found for each question.

    Args:
        model: a `LongformerForMultiHopAnswers`, or an engine around it.
        questions: are read as one batch.
        longest: tokens of the longest piece.
        padding: the token that fills up shorter ones.
        device: where the model is.
    """
    filling = {IDS: padding, **dict.fromkeys(_PLACES, -1)}
    batch = {
        name: pad_sequence(
            [torch.tensor(question.inputs[name]) for question in questions],
            batch_first=True,
            padding_value=filling.get(name, 0),
        ).to(device)
        for name in questions[0].inputs
    }
    lengths = torch.tensor([len(question.inputs[IDS]) for question in questions])
    batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long().to(device)
    output = model(**batch)
    logits = {name: each.float().cpu() for name, each in output.items()}
    return [
        _answer(question.lines, {name: each[number] for name, each in logits.items()}, longest)
        for number, question in enumerate(questions)
    ]


def _answer(lines: Sequence[Line], logits: Mapping[str, Tensor], longest: int) -> HopAnswer:
    titles = [line for line in lines if line.sentence < 0]
    sentences = [line for line in lines if line.sentence >= 0]
    scores = {
        (line.paragraph, line.sentence): score
        for line, score in zip(sentences, logits["sentence_logits"].tolist(), strict=False)
    }
    paragraphs = {
        line.paragraph: score for line, score in zip(titles, logits["paragraph_logits"].tolist(), strict=False)
    }
    kinds = logits["type_logits"].softmax(-1).tolist()
    kind = int(np.argmax(kinds))
    best: tuple[float, Line | None, int, int] = (-np.inf, None, 0, 0)
    starts, ends = logits["start_logits"], logits["end_logits"]
    for line in lines:
        own = slice(line.place, line.place + line.tokens)
        for span in best_spans(starts[own], ends[own], longest=longest, count=1):
            best = max(best, (span.score, line, span.first, span.last), key=lambda found: found[0])
    score = kinds[kind]
    if kind == 0 and best[1] is not None:
        is_read = torch.cat([torch.arange(line.place, line.place + line.tokens) for line in lines])
        score *= float((best[0] - starts[is_read].logsumexp(0) - ends[is_read].logsumexp(0)).exp())
    return HopAnswer(kind, *best[1:], score, evidence(scores), paragraphs)


def evidence(scores: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Returns the sentences of exactly two paragraphs whose logits have the highest sum; of one where there is but one.

    Of each paragraph that is all sentences with positive logits, or where there is none the best (Longformer paper,
    appendix, HotpotQA).

    Args:
        scores: the logits of sentences by the numbers of their paragraph and in it.
    """
    of_paragraphs: dict[int, dict[tuple[int, int], float]] = {}
    for fact, score in scores.items():
        of_paragraphs.setdefault(fact[0], {})[fact] = score
    chosen = []
    for facts in of_paragraphs.values():
        positive = [fact for fact, score in facts.items() if score > 0] or [max(facts, key=lambda fact: facts[fact])]
        chosen.append((sum(facts[fact] for fact in positive), positive))
    chosen.sort(key=lambda each: -each[0])
    return sorted(fact for _, facts in chosen[:2] for fact in facts)


def selected(paragraphs: Mapping[int, float]) -> list[int]:
    """Returns the paragraphs that a second stage reads: the best MOST_PARAGRAPHS of those above LEAST_LOGIT, and the
    best two in any case, in their order.

    Args:
        paragraphs: the logit of each by its number.
    """
    best = sorted(paragraphs, key=lambda number: -paragraphs[number])[:MOST_PARAGRAPHS]
    return sorted(number for rank, number in enumerate(best) if rank < 2 or paragraphs[number] > LEAST_LOGIT)
