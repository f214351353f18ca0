"""How questions are answered: what is read of a context that is too long, and which of its pieces answers best.

Evaluation and prediction share it through the `reading` of the model's config.json.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.inference.choosing import Around
from longformer.inference.classification import IDS, KEY, Inputs, Reading, padded_batch
from longformer.inference.queries import longest_query

SPANS_KEPT = 20
"""The best pieces of a window, of which the best of a context are chosen (Longformer paper, TriviaQA)."""


@dataclass(frozen=True)
class AnswerReading(Reading):
    """What a model that answers reads of a context, and which pieces of it may be answers."""

    long_documents: str = "windows"
    overlap: int = 128
    """Tokens that two windows share, so that an answer at an edge is whole in one of them."""
    longest_answer: int = 30
    """Tokens."""
    no_answer_above: float | None = None
    """No answer is given where the probability of none is larger; None: one always is."""

    @staticmethod
    def no_answer_in(config: Any) -> float | None:
        """Returns what a model's config tells of `no_answer_above`."""
        found: float | None = config.other.get(KEY, {}).get("no_answer_above")
        return found

    def step(self, room: int) -> int:
        return room - min(self.overlap, room // 2)

    def given(self, answer: str, no_answer: float) -> str:
        """Returns an answer, or nothing where it is more probable than allowed that there is none."""
        return "" if self.no_answer_above is not None and no_answer > self.no_answer_above else answer


class Window(NamedTuple):
    """What is read of a question and its context at a time."""

    inputs: Inputs
    place: int
    """Where in the inputs the first token of the context stands."""
    first: int
    """Which token of the context that is."""
    tokens: int
    """How many tokens of the context there are."""


class Span(NamedTuple):
    """A piece of a context that may answer a question."""

    score: float
    first: int
    """Its first token, counted in the context."""
    last: int


class WindowSpans(NamedTuple):
    """What is found in a window."""

    none: float
    """The score of no answer: the logits of the first token to be the first and the last of the answer, added."""
    spans: list[Span]
    """The best ones, whose logits are added, the best first."""

    def beside_none(self) -> list[Span]:
        """Returns the spans with scores that can be compared between windows: the log of how much more probable each
        is than that there is no answer here."""
        return [span._replace(score=span.score - self.none) for span in self.spans]


def context_windows(
    reading: AnswerReading, question: Sequence[int], context: Sequence[int], around: Around
) -> list[Window]:
    """Returns what is read of a context, a window at a time, each behind the question; all before the tokens that part
    question and context is global.

    Args:
        reading: says what is read of the context; the question is read whole.
        question, context: token ids without special ones.
        around: the special tokens.

    Raises:
        LongformerError: the question is too long.
    """
    most = longest_query(reading.length)
    if len(question) > most:
        raise LongformerError(
            f"the question has {len(question):,} tokens, but {most:,} are read beside a context in {reading.length:,}: "
            "shorten it"
        )
    front = [*around.before, *question, *around.between]
    asked, beside = len(around.before) + len(question), len(front) + len(around.after)
    windows = []
    for span in reading.spans(len(context), beside):
        part = context[span]
        ids = [*front, *part, *around.after]
        inputs = {IDS: ids, "global_attention_mask": [int(place < asked) for place in range(len(ids))]}
        if around.second_type:
            inputs["token_type_ids"] = [around.second_type * (place >= len(front)) for place in range(len(ids))]
        windows.append(Window(inputs, len(front), span.start, len(part)))
    return windows


@torch.no_grad()
def window_spans(
    model: Any, windows: Sequence[Window], *, longest: int, padding: int, device: torch.device | str = "cpu"
) -> list[WindowSpans]:
    """Returns the best spans of each window.

    Args:
        model: a `LongformerForQuestionAnswering`, or an engine around it.
        windows: are read as one batch.
        longest: tokens of the longest span.
        padding: the token that fills up shorter windows.
        device: where the model is.
    """
    output = model(**padded_batch([window.inputs for window in windows], padding=padding, device=device))
    logits = torch.stack([output.start_logits, output.end_logits]).float()
    none = logits[:, :, 0].sum(0).tolist()
    found = []
    for number, window in enumerate(windows):
        starts, ends = logits[:, number, window.place : window.place + window.tokens]
        spans = [
            Span(score, first + window.first, last + window.first)
            for score, first, last in best_spans(starts, ends, longest=longest, count=SPANS_KEPT)
        ]
        found.append(WindowSpans(none[number], spans))
    return found


def best_spans(starts: Tensor, ends: Tensor, *, longest: int, count: int) -> list[Span]:
    """Returns the spans with the highest sums of logits, the best first, and fewer where there are not so many.

    Args:
        starts, ends: (tokens,) float, the logits of every token to be the first and the last.
        longest: tokens of the longest span.
        count: how many.
    """
    tokens = len(starts)
    scores = starts.new_full((min(longest, tokens), tokens), -torch.inf)
    for more in range(len(scores)):
        scores[more, : tokens - more] = starts[: tokens - more] + ends[more:]
    best = scores.flatten().topk(min(count, int(scores.isfinite().sum())))
    return [
        Span(score, place % tokens, place % tokens + place // tokens)
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def merged(spans: Iterable[Span], *, count: int) -> list[Span]:
    """Returns the best of the spans of all windows of a context, the best first, each once."""
    found: dict[tuple[int, int], Span] = {}
    for span in sorted(spans, reverse=True):
        found.setdefault((span.first, span.last), span)
    return list(found.values())[:count]


def probabilities(spans: Sequence[Span]) -> tuple[float, list[float]]:
    """Returns how probable it is that there is no answer, and that each span is it, given scores beside none."""
    scores = torch.tensor([0.0, *(span.score for span in spans)], dtype=torch.float64)
    none, *found = scores.softmax(0).tolist()
    return none, found


def text_of(context: str, offsets: Sequence[tuple[int, int]], first: int, last: int) -> tuple[str, int]:
    """Returns the piece of a context from one token to another, without white space at its ends, and where it begins.

    Args:
        context: the text.
        offsets: where each of its tokens begins and ends, in characters.
        first, last: the tokens.
    """
    piece = context[offsets[first][0] : offsets[last][1]]
    text = piece.strip()
    return text, offsets[first][0] + piece.find(text)
