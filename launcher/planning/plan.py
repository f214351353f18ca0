"""What a run will take: steps, tokens, memory per rank, FLOPs and time, computed before anything is spent."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data_pipeline.errors import DataError
from launcher.config.run_config import RunConfig
from launcher.planning.fit import phase_memory, settled
from launcher.planning.gpus import Gpu
from launcher.tasks.registry import data_of, task_of
from longformer.costs.memory import MemoryEstimate
from longformer.costs.training import TrainingCost
from longformer.training.objectives import Lengths

SAMPLED = 256
"""Sequences whose lengths stand for those of a phase; the mean of so many is within a few percent of that of all."""


@dataclass(frozen=True)
class PhasePlan:
    """What one phase will take."""

    name: str
    sequence_length: int
    steps: int
    tokens: int
    """Tokens trained on, read and written, padding not counted; of a character model, characters."""
    epochs: float | None
    """How often the training text is read; None until the data is prepared."""
    micro_batch_size: int
    accumulation_steps: int
    memory: MemoryEstimate
    """Bytes per rank."""
    flops: float
    """Of the model, over all ranks."""
    seconds_at_peak: float
    """Training time were every device busy with nothing but the model: no run is faster."""


@dataclass(frozen=True)
class RunPlan:
    """What the whole run will take."""

    name: str
    ranks: int
    parameters: int
    peak_flops: float
    """Per second, of all devices together."""
    shards: int | None
    """Shards of the training text; None until the data is prepared."""
    shards_per_rank: float | None
    phases: tuple[PhasePlan, ...]

    @property
    def seconds_at_peak(self) -> float:
        """Of all phases together."""
        return sum(phase.seconds_at_peak for phase in self.phases)


def plan_run(config: RunConfig, device: Gpu, *, ranks: int, on_gpu: bool, peak_flops: float) -> RunPlan:
    """Returns what the run will take on `ranks` ranks with such devices, which together reach `peak_flops` per second.

    Raises:
        LongformerError: a batch cannot be divided over the ranks.
    """
    shards = data_of(config).training_shards()
    costs = [task_of(config).cost(index) for index in range(len(config.phases))]
    return RunPlan(
        name=config.name,
        ranks=ranks,
        parameters=costs[0].weights.all,
        peak_flops=peak_flops,
        shards=shards,
        shards_per_rank=shards / ranks if shards else None,
        phases=tuple(
            _phase_plan(
                settled(cost, config, index, device, ranks=ranks, on_gpu=on_gpu),
                index,
                cost,
                ranks=ranks,
                on_gpu=on_gpu,
                peak_flops=peak_flops,
            )
            for index, cost in enumerate(costs)
        ),
    )


@dataclass(frozen=True)
class PhaseSequences:
    """What the sequences of a phase are like."""

    lengths: Sequence[Lengths]
    """Of the texts in the first ones; of a full one where the data is not prepared, or not fit for training."""
    count: int
    """Sequences that hold these texts."""
    per_epoch: int | None
    """None until the data is prepared."""

    def flops(self, cost: TrainingCost) -> float:
        """Returns the useful operations to train on one sequence, on average."""
        return sum(map(cost.flops, self.lengths)) / self.count


def phase_sequences(config: RunConfig, index: int) -> PhaseSequences:
    """Returns what the sequences of a phase are like, from the prepared data where it is there."""
    task, phase = task_of(config), config.phases[index]
    unknown = PhaseSequences(task.full_lengths(index), 1, None)
    if task.data.training_shards() is None:
        return unknown
    try:
        sequences = task.data.sequences(index)
        some = [sequences.sequence(at) for at in range(min(SAMPLED, phase.total_steps * phase.batch_size))]
    except DataError:
        return unknown
    batches = [{name: torch.as_tensor(array)[None] for name, array in sequence.items()} for sequence in some]
    lengths = [each for batch in batches for each in task.objective.lengths(batch)]
    return PhaseSequences(lengths, len(some), sequences.per_epoch)


def _phase_plan(
    config: RunConfig, index: int, cost: TrainingCost, *, ranks: int, on_gpu: bool, peak_flops: float
) -> PhasePlan:
    phase = config.phases[index]
    batching = phase.batching(ranks)
    sequences, trained = phase_sequences(config, index), phase.total_steps * phase.batch_size
    flops = trained * sequences.flops(cost)
    return PhasePlan(
        name=phase.name,
        sequence_length=phase.sequence_length,
        steps=phase.total_steps,
        tokens=round(trained * sum(each.tokens for each in sequences.lengths) / sequences.count),
        epochs=trained / sequences.per_epoch if sequences.per_epoch else None,
        micro_batch_size=batching.micro_batch_size,
        accumulation_steps=batching.accumulation_steps,
        memory=phase_memory(cost, config, index, ranks=ranks, on_gpu=on_gpu),
        flops=flops,
        seconds_at_peak=flops / peak_flops,
    )
