"""What a run will take: steps, tokens, memory per rank, FLOPs and time, computed before anything is spent."""

from dataclasses import dataclass

from launcher.config.run_config import RunConfig
from launcher.tasks.base import PhaseCost
from launcher.tasks.registry import data_of, task_of
from longformer.costs.memory import MemoryEstimate


@dataclass(frozen=True)
class PhasePlan:
    """What one phase will take."""

    name: str
    sequence_length: int
    steps: int
    tokens: int
    """Tokens trained on; of a character model, characters."""
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


def plan_run(config: RunConfig, *, ranks: int, on_gpu: bool, peak_flops: float) -> RunPlan:
    """Returns what the run will take on `ranks` ranks, GPUs or not, that together reach `peak_flops` per second.

    Raises:
        LongformerError: a batch cannot be divided over the ranks.
    """
    text = data_of(config).training_text()
    return RunPlan(
        name=config.name,
        ranks=ranks,
        parameters=task_of(config).parameters(),
        peak_flops=peak_flops,
        shards=text.shards if text else None,
        shards_per_rank=text.shards / ranks if text else None,
        phases=tuple(
            _phase_plan(
                config,
                index,
                phase_cost(config, index, ranks=ranks, on_gpu=on_gpu),
                ranks=ranks,
                peak_flops=peak_flops,
                train_tokens=text.tokens if text else None,
            )
            for index in range(len(config.phases))
        ),
    )


def phase_cost(config: RunConfig, index: int, *, ranks: int, on_gpu: bool) -> PhaseCost:
    """Returns what a phase costs on so many ranks, each a GPU or a CPU.

    Raises:
        LongformerError: its batch cannot be divided over the ranks.
    """
    task = task_of(config)
    return task.phase_cost(index, task.layout(index, ranks=ranks, on_gpu=on_gpu))


def _phase_plan(
    config: RunConfig, index: int, cost: PhaseCost, *, ranks: int, peak_flops: float, train_tokens: int | None
) -> PhasePlan:
    phase = config.phases[index]
    batching = phase.batching(ranks)
    tokens = phase.total_steps * phase.tokens_per_step
    flops = tokens * cost.flops_per_token
    return PhasePlan(
        name=phase.name,
        sequence_length=phase.sequence_length,
        steps=phase.total_steps,
        tokens=tokens,
        epochs=tokens / train_tokens if train_tokens else None,
        micro_batch_size=batching.micro_batch_size,
        accumulation_steps=batching.accumulation_steps,
        memory=cost.memory,
        flops=flops,
        seconds_at_peak=flops / peak_flops,
    )
