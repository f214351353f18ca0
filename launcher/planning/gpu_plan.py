"""What a run will take on GPUs of a known kind: memory by ZeRO stage, time, checkpoints, and what does not fit.

Everything is computed: memory by the formulas of longformer/costs, time from the operations, the data sheet's peak
speed and an assumed share of it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from launcher.config.run_config import RunConfig
from launcher.planning.gpus import Gpu
from launcher.planning.plan import phase_cost, phase_sequences
from launcher.reporting.text import clock
from launcher.tasks.registry import task_of
from longformer.costs.memory import MemoryEstimate

USABLE = 0.9
"""Share of a GPU's memory that a run may fill; CUDA, NCCL and gaps between tensors take the rest."""
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
    checkpoint = checkpoint_bytes(task_of(config).parameters(), training.precision, training.zero_stage)
    phases = []
    for index, phase in enumerate(config.phases):
        costs = [
            phase_cost(changed(config, training={"zero_stage": stage}), index, ranks=gpus, on_gpu=True)
            for stage in ZERO_STAGES
        ]
        step = phase.batch_size * phase_sequences(config, index).flops(costs[0]) / speed
        step *= RECOMPUTATION if training.activation_checkpointing else 1
        # Before every evaluation there is a checkpoint, too.
        every = min(training.checkpoint_every_steps, phase.evaluate_every_steps or phase.total_steps, phase.total_steps)
        phases.append(
            PhaseForecast(
                name=phase.name,
                memory=tuple(cost.memory for cost in costs),
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
        warnings=tuple(_warnings(config, gpu, gpus, phases)),
    )


def checkpoint_bytes(parameters: int, precision: str, zero_stage: int) -> int:
    """Returns the size of a checkpoint: weights, AdamW's two averages, and its own fp32 weights where it has some.

    With ZeRO 3 the latter are the only ones.
    """
    weights = {"fp32": 4}.get(precision, 2) if zero_stage < 3 else 0
    own_weights = 4 if zero_stage > 0 or precision != "fp32" else 0
    return parameters * (weights + own_weights + 8)


def fits(memory: MemoryEstimate, gpu: Gpu) -> bool:
    """Returns whether a rank has room on a GPU."""
    return memory.total <= USABLE * gpu.memory


def changed(
    config: RunConfig, *, training: dict[str, Any], phase: tuple[int, dict[str, Any]] | None = None
) -> RunConfig:
    """Returns the config with values of the training section, and of one phase, replaced."""
    phases = list(config.phases)
    if phase is not None:
        phases[phase[0]] = phases[phase[0]].model_copy(update=phase[1])
    update = {"training": config.training.model_copy(update=training), "phases": tuple(phases)}
    return config.model_copy(update=update)


@dataclass(frozen=True)
class Fit:
    """Settings with which a phase fits."""

    micro_batch_size: int
    training: dict[str, Any]
    """What is to change in the run file's training section."""


def first_fit(config: RunConfig, index: int, gpu: Gpu, *, gpus: int) -> Fit | None:
    """Returns the first setting that fits, the cheapest tried first: smaller micro-batches, then less kept.

    Args:
        config: the run.
        index: of the phase.
        gpu, gpus: as in `forecast`.

    Returns:
        None where no setting fits that the run's task allows.
    """
    batching = config.phases[index].batching(gpus)
    sizes = [size for size in range(batching.micro_batch_size, 0, -1) if batching.micro_batch_size % size == 0]
    for training in (
        {},
        {"activation_checkpointing": True},
        {"activation_checkpointing": True, "zero_stage": max(2, config.training.zero_stage)},
        {"activation_checkpointing": True, "zero_stage": 3},
    ):
        for size in sizes:
            attempt = changed(config, training=training, phase=(index, {"micro_batch_size": size}))
            if _is_allowed(attempt) and fits(phase_cost(attempt, index, ranks=gpus, on_gpu=True).memory, gpu):
                return Fit(size, training)
    return None


def _is_allowed(config: RunConfig) -> bool:
    """Returns whether the run file could say so; a task may refuse a ZeRO stage."""
    try:
        type(config).model_validate(config.model_dump())
    except ValidationError:
        return False
    return True


def _warnings(config: RunConfig, gpu: Gpu, gpus: int, phases: list[PhaseForecast]) -> Iterator[str]:
    for index, phase in enumerate(phases):
        memory = phase.memory[config.training.zero_stage]
        if not fits(memory, gpu):
            yield (
                f"phases[{index}] ({phase.name}) needs about {memory.total / 1e9:.0f} GB of each {gpu.name}, of which "
                f"{USABLE:.0%} can be filled: {_remedy(config, index, gpu, gpus)}"
            )
        if phase.checkpoints > 1 and phase.checkpoint_seconds < OFTEN_SECONDS:
            yield (
                f"phases[{index}] ({phase.name}) writes a checkpoint every {clock(phase.checkpoint_seconds)}; raise "
                "training.checkpoint_every_steps"
            )
        if phase.checkpoint_seconds > LONGEST_LOSS_SECONDS:
            yield (
                f"phases[{index}] ({phase.name}) has {clock(phase.checkpoint_seconds)} between checkpoints, which a "
                "failure can cost; lower training.checkpoint_every_steps"
            )


def _remedy(config: RunConfig, index: int, gpu: Gpu, gpus: int) -> str:
    """Returns in words what makes a phase fit."""
    fit = first_fit(config, index, gpu, gpus=gpus)
    if fit is None:
        return f"no setting makes it fit; take more or larger GPUs than {gpus} x {gpu.name}, or shorter sequences"
    words = [f"training.{name}={str(value).lower()}" for name, value in fit.training.items()]
    return f"it fits with {' '.join([f'phases.{index}.micro_batch_size={fit.micro_batch_size}', *words])}"
