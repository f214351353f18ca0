"""Bits per character as in the Longformer paper: overlapping sequences of which only the end is scored.

Every character of a text except the very first, which nothing precedes, is scored exactly once (spec 3.4).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from longformer.evaluation.shared_work import summed

Model: TypeAlias = Callable[[Tensor], Tensor]
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
    model: Model,
    tokens: np.ndarray | Tensor,
    *,
    sequence_length: int,
    stride: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    report_progress: Callable[[int, int], None] | None = None,
) -> BitsPerCharacter:
    """Score a text with sequences that step by `stride`, counting only the last `stride` characters of each.

    The paper uses sequences of 32,256 and a stride of 512. The first sequence is scored whole, with whatever context
    there is; the last one is moved back to end with the text.

    Args:
        model: put into evaluation mode for the time being, if it is a module.
        tokens: (characters,) integers, the whole text.
        sequence_length: characters the model reads at a time.
        stride: from 1 to sequence_length.
        batch_size: sequences per forward call.
        rank, world_size: share the work through torch.distributed. Every rank makes the same number of forward
            calls, as ZeRO-3 needs, and returns the result for the whole text.
        report_progress: called with (forward calls made, forward calls in all) of this rank.

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


def _nats(model: Model, stream: Tensor, batch: list[_Sequence], length: int, device: torch.device) -> Tensor:
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
