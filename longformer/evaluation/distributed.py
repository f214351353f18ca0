"""Sums over batches that ranks share: every rank makes equally many forward calls and gets the whole sum."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Batch = TypeVar("Batch")


@torch.no_grad()
def summed(
    score: Callable[[Batch, torch.device], Tensor],
    batches: Sequence[Batch],
    model: object,
    *,
    rank: int,
    world_size: int,
    report_progress: Callable[[int, int], None] | None,
) -> float:
    """Return the sum of score(batch, device) over all batches, without gradients.

    Args:
        score: calls the model once and returns a number, () float64.
        batches: the same on every rank, at least one.
        model: put into evaluation mode for the time being, and asked for its device, if it is a module.
        rank, world_size: share the work through torch.distributed. Every rank makes the same number of forward
            calls, as ZeRO-3 needs.
        report_progress: called with (forward calls made, forward calls in all) of this rank.
    """
    module = model if isinstance(model, nn.Module) else None
    first_parameter = next(module.parameters(), None) if module else None
    device = torch.device("cpu") if first_parameter is None else first_parameter.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    rounds = math.ceil(len(batches) / world_size)
    was_training = module.training if module else False
    try:
        if module:
            module.eval()
        for round_index in range(rounds):
            turn = round_index * world_size + rank
            # A rank without work of its own repeats a batch and throws the result away: all must call alike.
            result = score(batches[turn if turn < len(batches) else 0], device)
            total += result if turn < len(batches) else 0.0
            if report_progress:
                report_progress(round_index + 1, rounds)
    finally:
        if module:
            module.train(was_training)
    if world_size > 1:
        torch.distributed.all_reduce(total)
    return float(total.item())
