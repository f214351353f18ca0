"""What sets the phases of one task apart from another's: the parts of a phase on one rank."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor, nn

from launcher.config.run_config import RunConfig
from longformer.training.distributed import Ranks
from longformer.training.objectives import BatchSource, Objective

ReportProgress = Callable[[int, int], None]
"""Called as report_progress(done, total), in forward calls of this rank."""


class SavedModel(Protocol):
    """A model that writes itself into a directory."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the parameters by name."""
        ...

    def save_pretrained(self, directory: Path) -> None:
        """Write the model's config and weights."""
        ...


class TaskPhase(Protocol):
    """The parts of one phase on one rank."""

    @property
    def objective(self) -> Objective:
        """What the weights are moved towards."""
        ...

    def batches(self, ranks: Ranks, left_out: Collection[int]) -> BatchSource:
        """Return the rank's batches without the global batches that begin at the positions in `left_out`."""
        ...

    def model(self, origin: Path | None) -> nn.Module:
        """Return the model with the weights of a model directory, or with fresh ones from torch's generator."""
        ...

    def flops_per_token(self, origin: Path | None) -> float:
        """Return the useful operations to train on one token the model that `model` returns."""
        ...

    def evaluate(
        self, model: nn.Module, ranks: Ranks, *, with_test: bool, report_progress: ReportProgress
    ) -> dict[str, dict[str, Any]]:
        """Return the scores of each held-out split; all ranks share the work and must call it."""
        ...

    def write_model(self, weights: dict[str, Tensor], origin: Path | None, target: Path) -> None:
        """Write the model directory of the phase's result, with all that the model needs to be used.

        Args:
            weights: every parameter, whole, by name.
            origin: what `model` was given.
            target: a directory that does not exist.
        """
        ...


def save_weights(model: SavedModel, weights: Mapping[str, Tensor], target: Path) -> None:
    """Write a model directory.

    Args:
        model: of the right shape; its own numbers are overwritten.
        weights: every parameter, whole, by name.
        target: a directory that does not exist.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    model.save_pretrained(target)


def judged_splits(*, with_test: bool) -> list[str]:
    """Return the names of the splits that a phase is judged on."""
    return ["validation", "test"] if with_test else ["validation"]


class BatchSizes(TypedDict):
    """How a phase is cut into batches, in the words of `data_pipeline.loading.rank_loader.RankBatches`."""

    global_batch_size: int
    micro_batch_size: int
    rank: int
    world_size: int


def batch_sizes(config: RunConfig, index: int, ranks: Ranks) -> BatchSizes:
    """Return how a phase's batches are shared out."""
    phase = config.phases[index]
    return BatchSizes(
        global_batch_size=phase.batch_size,
        micro_batch_size=phase.batching(ranks.world_size).micro_batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
