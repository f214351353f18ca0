"""How the words of a text are labelled: by the first token of each, in the parts that a `Reading` reads.

Evaluation and prediction share it. Each word that is read is labelled once, in the first part that holds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
