"""Work over batches that ranks share: every rank makes a part of the forward calls and gets the whole result."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

Batch = TypeVar("Batch")
Result = TypeVar("Result")
ReportProgress = Callable[[int, int], None]
"""Called with (rounds done, rounds in all)."""


def summed(
    score: Callable[[Batch, torch.device], Tensor],
    batches: Sequence[Batch],
    model: object,
    *,
    rank: int,
    world_size: int,
    report_progress: ReportProgress | None,
) -> float:
    """Returns the sum of score(batch, device) over all batches, without gradients.

    Args:
        score: calls the model once and returns a number, () float64.
        batches: the same on every rank, at least one.
        model: put into evaluation mode for the time being, and asked for its device, if it is a module.
        rank, world_size: share the work through torch.distributed.
        report_progress: called after every round of forward calls, in which a rank may have none left to make: equally
            often on every rank.
    """
    total = torch.zeros((), dtype=torch.float64, device=_device_of(model))
    for _, result in _results(score, batches, model, rank, world_size, report_progress):
        total += result
    if world_size > 1:
        torch.distributed.all_reduce(total)
    return float(total.item())


def gathered(
    predict: Callable[[Batch, torch.device], Sequence[Result]],
    batches: Sequence[Batch],
    model: object,
    *,
    rank: int,
    world_size: int,
    report_progress: ReportProgress | None,
) -> list[Result]:
    """Returns what predict(batch, device) gives for all batches, one after the other, without gradients.

    Arguments as in `summed`; what `predict` returns must be fit for pickling between the ranks of one run.
    """
    mine = {turn: list(found) for turn, found in _results(predict, batches, model, rank, world_size, report_progress)}
    of_ranks = [mine]
    if world_size > 1:
        of_ranks = [{} for _ in range(world_size)]
        torch.distributed.all_gather_object(of_ranks, mine)
    together = {turn: found for each in of_ranks for turn, found in each.items()}
    return [result for turn in sorted(together) for result in together[turn]]


@torch.no_grad()
def _results(
    work: Callable[[Batch, torch.device], Result],
    batches: Sequence[Batch],
    model: object,
    rank: int,
    world_size: int,
    report_progress: ReportProgress | None,
) -> Iterator[tuple[int, Result]]:
    """Yields the number and the result of each batch that is this rank's."""
    module = model if isinstance(model, nn.Module) else None
    device = _device_of(model)
    rounds = math.ceil(len(batches) / world_size)
    was_training = module.training if module else False
    try:
        if module:
            module.eval()
        for round_index in range(rounds):
            turn = round_index * world_size + rank
            if turn < len(batches):
                yield turn, work(batches[turn], device)
            if report_progress:
                report_progress(round_index + 1, rounds)
    finally:
        if module:
            module.train(was_training)


def _device_of(model: object) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
