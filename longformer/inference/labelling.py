"""How the words of a text are labelled: by the first token of each, in the parts that a `Reading` reads.

Evaluation and prediction share it. Each word that is read is labelled once, in the first part that holds it.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from re import finditer
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longformer.inference.classification import IDS, Reading, padded_batch


@dataclass(frozen=True)
class Part:
    """What a model reads at a time of a text of words."""

    ids: list[int]
    """Special tokens included."""
    words: np.ndarray
    """(words,) int: the numbers of those that are labelled here."""
    places: np.ndarray
    """(words,) int: where in `ids` the first token of each stands."""


def word_parts(
    reading: Reading, text: Sequence[int], firsts: np.ndarray, *, before: Sequence[int], after: Sequence[int]
) -> list[Part]:
    """Returns what is read of a text, with its words.

    Args:
        reading: says what is read of it.
        text: token ids without special ones.
        firsts: (words,) int, where in `text` the first token of each word stands.
        before, after: special tokens around each part.
    """
    spans = reading.spans(len(text), len(before) + len(after))
    parts = []
    for previous, span in pairwise([slice(0, 0), *spans]):
        words = np.flatnonzero((firsts >= max(previous.stop, span.start)) & (firsts < span.stop))
        parts.append(Part([*before, *text[span], *after], words, firsts[words] - span.start + len(before)))
    return parts


@torch.no_grad()
def word_values(model: Any, parts: Sequence[Part], *, padding: int, device: torch.device | str = "cpu") -> list[Tensor]:
    """Returns the probabilities of the classes of the words of each part, (words, classes) float32.

    Args:
        model: a `LongformerForTokenClassification`, or an engine around it.
        parts: are read as one batch.
        padding: the token that fills up shorter parts.
        device: where the model is.
    """
    logits = model(**padded_batch([{IDS: part.ids} for part in parts], padding=padding, device=device)).logits
    return [
        logits[number, torch.as_tensor(part.places, device=device)].float().softmax(-1)
        for number, part in enumerate(parts)
    ]


def words_of(text: str) -> list[tuple[int, int]]:
    """Returns where each word of a text begins and ends, in characters.

    Where no line holds more than one, these are the words. Else white space parts them, and punctuation marks and
    symbols at either end of a word are words of their own.
    """
    is_list = "\n" in text.strip() and all(len(line.split()) <= 1 for line in text.split("\n"))
    found = (match.span() for match in finditer(r"\S+", text))
    return list(found) if is_list else [word for start, end in found for word in _without_marks(text, start, end)]


def _without_marks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    first, last = start, end
    while first < last and _is_mark(text[first]):
        first += 1
    while first < last and _is_mark(text[last - 1]):
        last -= 1
    yield from ((place, place + 1) for place in range(start, first))
    if first < last:
        yield first, last
    yield from ((place, place + 1) for place in range(last, end))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
