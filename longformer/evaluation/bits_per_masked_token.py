"""Bits per masked token, the measure of the Longformer paper's tables of masked language models (spec 4).

The masks belong to the text, not to the rows that it is cut into, so models that read rows of different lengths
predict the same tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longformer.evaluation.shared_work import summed
from longformer.models.common.token_loss import IGNORED

Model = Callable[..., Any]
"""Takes input_ids, attention_mask and labels, each (batch, positions) long, and returns what has a mean `loss`."""


@dataclass(frozen=True)
class MaskedText:
    """A text of which some tokens are hidden."""

    tokens: np.ndarray
    """(length,) int64: what a model sees."""
    labels: np.ndarray
    """(length,) int64: what was hidden; IGNORED elsewhere."""
    begin: int
    """Token that begins a row."""
    end: int
    """Token that ends a row."""
    padding: int


@dataclass(frozen=True)
class BitsPerMaskedToken:
    """How many bits a model needs for a hidden token."""

    bits: float
    """Mean of -log2 of the probability given to each."""
    scored: int
    """Number of hidden tokens."""


def evaluate_bits_per_masked_token(
    model: Model,
    text: MaskedText,
    *,
    sequence_length: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    report_progress: Callable[[int, int], None] | None = None,
) -> BitsPerMaskedToken:
    """Score the hidden tokens of a text, read in rows of begin token, text and end token.

    Args:
        model: a masked language model, or an engine around one.
        text: the whole text.
        sequence_length: tokens of a row, at least 3; the last row is padded.
        batch_size: rows per forward call.
        rank, world_size, report_progress: as in `summed`.

    Raises:
        ValueError: rows leave no room for text, or no token is hidden.
    """
    if sequence_length < 3:
        raise ValueError(f"sequence_length must be at least 3, got {sequence_length}")
    scored = int((text.labels != IGNORED).sum())
    if not scored:
        raise ValueError("no token of the text is hidden: there is nothing to score")
    room = sequence_length - 2
    starts = range(0, len(text.tokens), room)
    batches = [starts[first : first + batch_size] for first in range(0, len(starts), batch_size)]

    def score(batch: range, device: torch.device) -> Tensor:
        rows = {name: values.to(device) for name, values in _rows(text, batch, room).items()}
        loss = model(**rows).loss
        return loss.double() * (rows["labels"] != IGNORED).sum()

    nats = summed(score, batches, model, rank=rank, world_size=world_size, report_progress=report_progress)
    return BitsPerMaskedToken(nats / scored / math.log(2), scored)


def _rows(text: MaskedText, starts: range, room: int) -> dict[str, Tensor]:
    """Return the rows whose text begins at `starts`."""
    shape = (len(starts), room + 2)
    tokens, labels = np.full(shape, text.padding), np.full(shape, IGNORED)
    mask = np.zeros(shape, dtype=np.int64)
    for row, start in enumerate(starts):
        piece = slice(start, start + room)
        length = len(text.tokens[piece])
        tokens[row, : length + 2] = [text.begin, *text.tokens[piece], text.end]
        labels[row, 1 : length + 1] = text.labels[piece]
        mask[row, : length + 2] = 1
    columns = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(values) for name, values in columns.items()}
