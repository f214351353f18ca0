"""What a run will take: steps, tokens, memory per rank, FLOPs and time, computed before anything is spent."""

from dataclasses import dataclass

from data_pipeline.prepared import PreparedData
from launcher.run_file import RunConfig
from longformer.cost import MemoryEstimate, parameter_count, training_flops_per_token, training_memory

LARGEST_BYTE_VOCABULARY = 256
"""Assumed until the data is prepared; a smaller vocabulary changes memory and FLOPs by less than a percent."""


@dataclass(frozen=True)
class PhasePlan:
    """What one phase will take."""

    name: str
    sequence_length: int
    steps: int
    tokens: int
    """Characters trained on."""
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
    vocabulary_size: int
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


def plan_run(config: RunConfig, *, ranks: int, peak_flops: float, data: PreparedData | None) -> RunPlan:
    """Return what the run will take on `ranks` ranks whose devices together reach `peak_flops` per second.

    Raises:
        LongformerError: a batch cannot be divided over the ranks.
    """
    vocabulary_size = len(data.vocabulary) if data else LARGEST_BYTE_VOCABULARY
    train = data.manifest.splits["train"] if data else None
    return RunPlan(
        name=config.name,
        ranks=ranks,
        parameters=parameter_count(config.character_model(0, vocabulary_size)),
        vocabulary_size=vocabulary_size,
        peak_flops=peak_flops,
        shards=len(train.shards) if train else None,
        shards_per_rank=len(train.shards) / ranks if train else None,
        phases=tuple(
            _phase_plan(config, index, ranks, vocabulary_size, peak_flops, train.tokens if train else None)
            for index in range(len(config.phases))
        ),
    )


def _phase_plan(
    config: RunConfig, index: int, ranks: int, vocabulary_size: int, peak_flops: float, train_tokens: int | None
) -> PhasePlan:
    phase = config.phases[index]
    model = config.character_model(index, vocabulary_size)
    batching = phase.batching(ranks)
    tokens = phase.steps * phase.tokens_per_step
    flops = tokens * training_flops_per_token(model, phase.sequence_length)
    return PhasePlan(
        name=phase.name,
        sequence_length=phase.sequence_length,
        steps=phase.steps,
        tokens=tokens,
        epochs=tokens / train_tokens if train_tokens else None,
        micro_batch_size=batching.micro_batch_size,
        accumulation_steps=batching.accumulation_steps,
        memory=phase_memory(config, index, vocabulary_size=vocabulary_size, ranks=ranks),
        flops=flops,
        seconds_at_peak=flops / peak_flops,
    )


def phase_memory(config: RunConfig, index: int, *, vocabulary_size: int, ranks: int) -> MemoryEstimate:
    """Return what a rank needs for model, optimizer and activations in a phase, in bytes."""
    phase = config.phases[index]
    return training_memory(
        config.character_model(index, vocabulary_size),
        sequence_length=phase.sequence_length,
        micro_batch_size=phase.batching(ranks).micro_batch_size,
        ranks=ranks,
        zero_stage=config.training.zero_stage,
        precision=config.training.precision,
        activation_checkpointing=config.training.activation_checkpointing,
    )
