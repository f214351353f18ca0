"""Which spans of a document may be mentions, and which of them are kept: the best ones that do not cross.

Spans of at most `most` tokens have numbers, `most` * first token + tokens - 1, so that a document's spans in the order
of their numbers stand in the order of the text, and a table (batch, tokens, most) has a place for each.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = 64
"""More than it takes to settle which spans are kept; on a GPU to look whether they are settled is to wait for it."""


class Documents(NamedTuple):
    """What is known of the tokens of documents, each (batch, tokens) long, -1 behind the last; but for the genre."""

    words: Tensor
    """Number of the word that a token is of."""
    sentences: Tensor
    speakers: Tensor
    """0 where unknown."""
    genre: Tensor
    """(batch,) long, 0 where unknown."""


class Spans(NamedTuple):
    """The spans of documents that are kept as mentions, in the order of the text, each (batch, spans)."""

    numbers: Tensor
    """Long; 0 where there is none."""
    firsts: Tensor
    """First token, long."""
    lasts: Tensor
    """Last token, long."""
    exist: Tensor
    """Bool; fewer may be found in one document than in another."""


def candidates(documents: Documents, most: int) -> Tensor:
    """Returns which spans may be mentions: those of whole words that lie in one sentence.

    Returns:
        (batch, tokens, most) bool.
    """
    words, sentences = documents.words, documents.sentences
    changes = functional.pad(words[:, 1:] != words[:, :-1], (1, 1), value=True)
    is_token = words >= 0
    begins, ends = changes[:, :-1] & is_token, changes[:, 1:] & is_token
    ends = functional.pad(ends, (0, most - 1)).unfold(1, most, 1)
    sentence_of_end = functional.pad(sentences, (0, most - 1), value=-1).unfold(1, most, 1)
    return begins[:, :, None] & ends & (sentence_of_end == sentences[:, :, None])


def wanted_spans(words: Tensor, spans_per_word: float, max_spans: int) -> Tensor:
    """Returns how many spans of each document are kept, (batch,) long, given `Documents.words`."""
    is_first = functional.pad(words[:, 1:] != words[:, :-1], (1, 0), value=True) & (words >= 0)
    return (is_first.sum(1).double() * spans_per_word).ceil().long().clamp(max=max_spans)


def kept_spans(scores: Tensor, wanted: Tensor, count: int) -> Spans:
    """Returns the best spans, taken one after the other if they cross none that is taken, `wanted` of each document.

    To cross is to overlap with neither inside the other. Of equal ones any is taken first; only the 2 * `count` best
    are looked at.

    Args:
        scores: (batch, tokens, most) float, minus infinity of what is no span.
        wanted: (batch,) long.
        count: the largest of `wanted`, at least 1.
    """
    most = scores.shape[2]
    scores = scores.flatten(1)
    best, numbers = scores.topk(min(2 * count, scores.shape[1]))
    is_kept = uncrossed(numbers // most, numbers // most + numbers % most) & (best > -math.inf)
    is_kept &= is_kept.cumsum(1) <= wanted[:, None]
    none = scores.shape[1]
    numbers = numbers.masked_fill(~is_kept, none).sort(1).values[:, :count]
    exist = numbers < none
    numbers = numbers * exist
    return Spans(numbers, numbers // most, numbers // most + numbers % most, exist)


def uncrossed(firsts: Tensor, lasts: Tensor) -> Tensor:
    """Returns which spans are taken where one after the other is, unless it crosses one that is taken.

    A span is taken if no better one that is taken crosses it. To begin with all as taken, and to apply this again and
    again, gives by turns too few and too many, and in the end the answer (Blelloch et al. 2012, greedy independent
    sets). After ROUNDS the too few are returned, none of which cross.

    Args:
        firsts, lasts: (batch, spans) long, the best first.

    Returns:
        (batch, spans) bool.
    """
    first, last, other_first, other_last = firsts[:, :, None], lasts[:, :, None], firsts[:, None], lasts[:, None]
    crosses = (other_first < first) & (first <= other_last) & (other_last < last)
    crosses |= (first < other_first) & (other_first <= last) & (last < other_last)
    better = crosses.tril(-1).float()
    taken = torch.ones_like(firsts, dtype=torch.bool)
    for _ in range(ROUNDS):
        too_few = _crossed_by_none(better, taken)
        taken = _crossed_by_none(better, too_few)
        if looks_at_values(firsts.device) and torch.equal(too_few, taken):
            break
    return too_few


def looks_at_values(device: torch.device) -> bool:
    """Returns whether the host may look at what a device computes without waiting for it."""
    return device.type == "cpu"


def _crossed_by_none(better: Tensor, taken: Tensor) -> Tensor:
    return (better @ taken[:, :, None].float()).squeeze(2) == 0


def cluster_table(labels: Tensor, tokens: int, most: int) -> Tensor:
    """Returns which cluster every span is of, by its number, (batch, tokens * most) long: 1 + its number, or 0.

    Args:
        labels: (batch, mentions, 3) long: first and last token and cluster of each mention, -1 behind the last.
        tokens: of a document.
        most: tokens of a span; mentions of more are left out.
    """
    firsts, lasts, clusters = labels.unbind(2)
    lengths = lasts - firsts
    none = tokens * most
    places = (firsts * most + lengths).masked_fill((firsts < 0) | (lengths >= most), none)
    return labels.new_zeros(labels.shape[0], none + 1).scatter(1, places, clusters + 1)[:, :none]


def of_tokens(values: Tensor, tokens: Tensor) -> Tensor:
    """Returns what (batch, tokens, ...) values are at tokens of each document, (batch, ..., ...).

    Args:
        values: (batch, tokens, width).
        tokens: (batch, ...) long.
    """
    # An embedding, because its gradient is summed in one order and fast.
    return functional.embedding(through_documents(tokens, values.shape[1]), values.flatten(0, 1))


def through_documents(tokens: Tensor, count: int) -> Tensor:
    """Returns the numbers of tokens, (batch, ...) long, counted through all documents, each of `count` tokens."""
    starts = count * torch.arange(len(tokens), device=tokens.device)
    return tokens + starts.view(-1, *[1] * (tokens.dim() - 1))
