"""What a run will take on GPUs of a known kind: memory by ZeRO stage, time, checkpoints, and what does not fit.

Everything is computed: memory by the formulas of longformer/costs, time from the operations, the data sheet's peak
speed and an assumed share of it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launcher.config.run_config import RunConfig
from launcher.planning.fit import USABLE, changed, first_fit, fits, phase_memory, settled
from launcher.planning.gpus import Gpu
from launcher.planning.plan import phase_sequences
from launcher.reporting.text import clock
from launcher.tasks.registry import task_of
from longformer.costs.memory import MemoryEstimate
from longformer.costs.training import TrainingCost

RECOMPUTATION = 4 / 3
"""Activation checkpointing computes the forward pass twice."""
OFTEN_SECONDS = 60.0
"""Checkpoints closer together than this get a warning: they fill disks and slow training."""
LONGEST_LOSS_SECONDS = 3600.0
"""A failure that costs more than so much training gets a warning."""
ZERO_STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class PhaseForecast:
    """One phase."""

    name: str
    memory: tuple[MemoryEstimate, ...]
    """Bytes per GPU with ZeRO stage 0, 1, 2, 3."""
    micro_batch_size: int
    accumulation_steps: int
    activation_checkpointing: bool
    """These three with the run's own stage, what is `auto` settled."""
    step_seconds: float
    seconds: float
    """Of the whole phase, without evaluation."""
    checkpoint_seconds: float
    """Between two checkpoints."""
    checkpoints: int
    """How many are written, that of the end included."""


@dataclass(frozen=True)
class Forecast:
    """The whole run."""

    gpu: Gpu
    gpus: int
    """All of them together."""
    mfu: float
    """Assumed share of the peak speed."""
    checkpoint_bytes: int
    """Of one checkpoint, over all ranks."""
    kept_bytes: int
    """Of all checkpoints that lie on the disk at the end of the run, the one being written included."""
    phases: tuple[PhaseForecast, ...]
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(phase.seconds for phase in self.phases)


def forecast(config: RunConfig, gpu: Gpu, *, gpus: int, mfu: float) -> Forecast:
    """Returns what the run will take with one rank on each of so many GPUs.

    Args:
        config: the run.
        gpu: the kind, which computes in the run's precision.
        gpus: how many, over all nodes.
        mfu: share of the peak speed that training is assumed to reach.

    Raises:
        LongformerError: a batch cannot be divided over the ranks.
    """
    training = config.training
    speed = gpus * mfu * gpu.peak_flops[training.precision]
    costs = [task_of(config).cost(index) for index in range(len(config.phases))]
    checkpoint = checkpoint_bytes(costs[0].weights.all, training.precision, training.zero_stage)
    phases = []
    for index, (phase, cost) in enumerate(zip(config.phases, costs, strict=True)):
        with_stages = [
            settled(cost, changed(config, training={"zero_stage": stage}), index, gpu, ranks=gpus, on_gpu=True)
            for stage in ZERO_STAGES
        ]
        chosen = with_stages[training.zero_stage]
        batching, recomputed = chosen.phases[index].batching(gpus), chosen.training.activation_checkpointing is True
        step = phase.batch_size * phase_sequences(config, index).flops(cost) / speed
        step *= RECOMPUTATION if recomputed else 1
        # Before every evaluation there is a checkpoint, too.
        minutes = training.checkpoint_every_minutes
        every = training.checkpoint_every_steps if minutes is None else math.ceil(60 * minutes / step)
        every = min(every, phase.evaluate_every_steps or phase.total_steps, phase.total_steps)
        phases.append(
            PhaseForecast(
                name=phase.name,
                memory=tuple(phase_memory(cost, each, index, ranks=gpus, on_gpu=True) for each in with_stages),
                micro_batch_size=batching.micro_batch_size,
                accumulation_steps=batching.accumulation_steps,
                activation_checkpointing=recomputed,
                step_seconds=step,
                seconds=step * phase.total_steps,
                checkpoint_seconds=step * every,
                checkpoints=math.ceil(phase.total_steps / every),
            )
        )
    permanent = training.permanent_checkpoint_every_steps
    lasting = sum(phase.total_steps // permanent for phase in config.phases) if permanent else 0
    kept = len(config.phases) * training.checkpoints_kept + lasting + 1
    kept += sum(phase.best is not None for phase in config.phases)
    return Forecast(
        gpu=gpu,
        gpus=gpus,
        mfu=mfu,
        checkpoint_bytes=checkpoint,
        kept_bytes=kept * checkpoint,
        phases=tuple(phases),
        warnings=tuple(_warnings(config, costs, gpu, gpus, phases)),
    )


def checkpoint_bytes(parameters: int, precision: str, zero_stage: int) -> int:
    """Returns the size of a checkpoint: weights, AdamW's two averages, and its own fp32 weights where it has some.

    With ZeRO 3 the latter are the only ones.
    """
    weights = {"fp32": 4}.get(precision, 2) if zero_stage < 3 else 0
    own_weights = 4 if zero_stage > 0 or precision != "fp32" else 0
    return parameters * (weights + own_weights + 8)


def _warnings(
    config: RunConfig, costs: Sequence[TrainingCost], gpu: Gpu, gpus: int, phases: list[PhaseForecast]
) -> Iterator[str]:
    by_time = config.training.checkpoint_every_minutes is not None
    interval = f"training.checkpoint_every_{'minutes' if by_time else 'steps'}"
    for index, phase in enumerate(phases):
        memory = phase.memory[config.training.zero_stage]
        if not fits(memory, gpu):
            yield (
                f"phases[{index}] ({phase.name}) needs about {memory.total / 1e9:.0f} GB of each {gpu.name}, of which "
                f"{USABLE:.0%} can be filled: {_remedy(costs[index], config, index, gpu, gpus)}"
            )
        if phase.checkpoints > 1 and phase.checkpoint_seconds < OFTEN_SECONDS:
            yield (
                f"phases[{index}] ({phase.name}) writes a checkpoint every {clock(phase.checkpoint_seconds)}; raise "
                f"{interval}"
            )
        if phase.checkpoint_seconds > LONGEST_LOSS_SECONDS:
            yield (
                f"phases[{index}] ({phase.name}) has {clock(phase.checkpoint_seconds)} between checkpoints, which a "
                f"failure can cost; lower {interval}"
            )


def _remedy(cost: TrainingCost, config: RunConfig, index: int, gpu: Gpu, gpus: int) -> str:
    """Returns in words what makes a phase fit."""
    fit, offloaded = first_fit(cost, config, index, gpu, gpus=gpus), {}
    if fit is None:
        # The last resort: such an update is slow.
        offloaded = {"zero_stage": max(2, config.training.zero_stage), "offload_optimizer": True}
        fit = first_fit(cost, changed(config, training=offloaded), index, gpu, gpus=gpus)
    if fit is None:
        return f"no setting makes it fit; take more or larger GPUs than {gpus} x {gpu.name}, or shorter sequences"
    words = [f"training.{name}={str(value).lower()}" for name, value in (offloaded | fit.training).items()]
    return f"it fits with {' '.join([f'phases.{index}.micro_batch_size={fit.micro_batch_size}', *words])}"
