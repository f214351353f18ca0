"""Bits per character and bits per masked token, the two measures of the Longformer paper's language models.

Bits per character (semantics.md 3.4): overlapping sequences of which only the end is scored. Every character of a text
except the very first, which nothing precedes, is scored exactly once.

Bits per masked token (semantics.md 4): the masks belong to the text, not to the sequences that it is cut into, so
models that read sequences of different lengths predict the same tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from longformer.evaluation.distributed import summed
from longformer.models.common.token_loss import IGNORED

CharacterModel: TypeAlias = Callable[[Tensor], Tensor]
"""Anything that turns tokens (batch, positions) into logits (batch, positions, vocabulary): a model, an engine."""


@dataclass(frozen=True)
class BitsPerCharacter:
    """How many bits a model needs for a character, and on what that rests."""

    bits: float
    """Mean of -log2 of the probability given to each scored character."""
    scored: int
    """Number of characters scored."""
    scored_without_full_context: int
    """How many of them saw at most sequence_length - stride characters, being near the start of the text."""


@dataclass(frozen=True)
class _Sequence:
    """`length` input characters whose last target is the character at `end`; the last `scored` targets count."""

    end: int
    scored: int


def evaluate_bits_per_character(
    model: CharacterModel,
    tokens: np.ndarray | Tensor,
    *,
    sequence_length: int,
    stride: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    report_progress: Callable[[int, int], None] | None = None,
) -> BitsPerCharacter:
    """Scores a text with sequences that step by `stride`, counting only the last `stride` characters of each.

    The paper uses sequences of 32,256 and a stride of 512. The first sequence is scored whole, with whatever context
    there is; the last one is moved back to end with the text.

    Args:
        model: put into evaluation mode for the time being, if it is a module.
        tokens: (characters,) integers, the whole text.
        sequence_length: characters the model reads at a time.
        stride: from 1 to sequence_length.
        batch_size: sequences per forward call.
        rank, world_size: share the work through torch.distributed; every rank returns the result for the whole text.
        report_progress: as in `summed`.

    Raises:
        ValueError: an argument is out of range, or the text has fewer than two characters.
    """
    _check_arguments(len(tokens), sequence_length, stride, batch_size, rank, world_size)
    stream = tokens if isinstance(tokens, Tensor) else torch.tensor(tokens)
    targets = len(stream) - 1
    length = min(sequence_length, targets)
    sequences = _sequences(targets, length, stride)
    batches = [sequences[start : start + batch_size] for start in range(0, len(sequences), batch_size)]
    nats = summed(
        lambda batch, device: _nats(model, stream, batch, length, device),
        batches,
        model,
        rank=rank,
        world_size=world_size,
        report_progress=report_progress,
    )
    return BitsPerCharacter(
        bits=nats / targets / math.log(2),
        scored=targets,
        scored_without_full_context=min(targets, sequence_length - stride),
    )


def _sequences(targets: int, length: int, stride: int) -> list[_Sequence]:
    ends = [*range(length, targets, stride), targets]
    return [_Sequence(end, end - before) for before, end in zip([0, *ends], ends, strict=False)]


def _nats(model: CharacterModel, stream: Tensor, batch: list[_Sequence], length: int, device: torch.device) -> Tensor:
    texts = torch.stack([stream[each.end - length : each.end + 1] for each in batch]).to(device, torch.long)
    logits = model(texts[:, :-1])
    total = torch.zeros((), dtype=torch.float64, device=device)
    for each, text, predicted in zip(batch, texts, logits, strict=True):
        scored = predicted[-each.scored :].float()
        total += functional.cross_entropy(scored, text[-each.scored :], reduction="sum").double()
    return total


def _check_arguments(
    characters: int, sequence_length: int, stride: int, batch_size: int, rank: int, world_size: int
) -> None:
    if characters < 2:
        raise ValueError(f"a text of {characters} characters has none to score: the first one is never predicted")
    if sequence_length < 1:
        raise ValueError(f"sequence_length must be at least 1, got {sequence_length}")
    if not 1 <= stride <= sequence_length:
        raise ValueError(f"stride must be from 1 to sequence_length ({sequence_length}), got {stride}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to world_size - 1 ({world_size - 1}), got {rank}")


MaskedModel: TypeAlias = Callable[..., Any]
"""Takes input_ids, attention_mask, labels and document_ids, each (batch, positions) long, and returns what has a mean
`loss`."""


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
    """Token that ends a document, and a row."""
    padding: int
    cross_document_attention: bool = True
    """Whether documents that share a row see each other; else a model gets `document_ids` as well."""


@dataclass(frozen=True)
class BitsPerMaskedToken:
    """How many bits a model needs for a hidden token."""

    bits: float
    """Mean of -log2 of the probability given to each."""
    scored: int
    """Number of hidden tokens."""


def evaluate_bits_per_masked_token(
    model: MaskedModel,
    text: MaskedText,
    *,
    sequence_length: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    report_progress: Callable[[int, int], None] | None = None,
) -> BitsPerMaskedToken:
    """Scores the hidden tokens of a text, read in rows of begin token, text and end token.

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
        rows = {name: values.to(device) for name, values in _masked_sequences(text, batch, room).items()}
        loss = model(**rows).loss
        return loss.double() * (rows["labels"] != IGNORED).sum()

    nats = summed(score, batches, model, rank=rank, world_size=world_size, report_progress=report_progress)
    return BitsPerMaskedToken(nats / scored / math.log(2), scored)


def _masked_sequences(text: MaskedText, starts: range, room: int) -> dict[str, Tensor]:
    """Returns the rows whose text begins at `starts`."""
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
    if not text.cross_document_attention:
        ends = tokens == text.end
        columns["document_ids"] = ends.cumsum(1) - ends
    return {name: torch.from_numpy(values) for name, values in columns.items()}
