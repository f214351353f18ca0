"""What a model learns: functions of (model, batch) that return the mean loss in nats."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from longformer.training.batches import Batch

Objective = Callable[[Callable[[Tensor], Tensor], Batch], Tensor]


def next_character_loss(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    """Return the mean cross-entropy in nats of every character given the ones before it (spec 3.1).

    Args:
        model: maps tokens (batch, positions) to logits (batch, positions, vocabulary).
        batch: {"tokens": (batch, positions + 1) long}; each position predicts its right neighbour.
    """
    tokens = batch["tokens"]
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
