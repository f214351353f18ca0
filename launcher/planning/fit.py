"""What a phase costs and what of it fits into the memory of a device; `auto` in a run file is settled here."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from launcher.config.run_config import RunConfig
from launcher.config.sections import divisors
from launcher.planning.gpus import Gpu
from launcher.tasks.registry import task_of
from longformer.costs.memory import MemoryEstimate, Precision
from longformer.costs.training import TrainingCost

USABLE = 0.9
"""Share of a GPU's memory that a run may fill; CUDA, NCCL and gaps between tensors take the rest."""


def this_machine(ranks: int) -> Gpu:
    """Returns the GPU of this process or, without one, the share of the machine's memory of one of so many ranks."""
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(torch.cuda.current_device())
        precision: Precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        return Gpu(facts.name, facts.total_memory, {precision: 0.0})
    total = psutil.virtual_memory().total
    granted = int(os.environ.get("SLURM_MEM_PER_NODE", 0)) * 2**20  # what takes more is ended
    return Gpu("this machine", min(total, granted or total) // ranks, {"fp32": 0.0})


def phase_memory(cost: TrainingCost, config: RunConfig, index: int, *, ranks: int, on_gpu: bool) -> MemoryEstimate:
    """Returns what a phase with this cost needs on each of so many ranks, on GPUs or CPUs.

    Raises:
        LongformerError: its batch cannot be divided over the ranks.
    """
    return cost.memory(task_of(config).layout(index, ranks=ranks, on_gpu=on_gpu))


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


def settled(cost: TrainingCost, config: RunConfig, index: int, gpu: Gpu, *, ranks: int, on_gpu: bool) -> RunConfig:
    """Returns the config with a value for each `auto` that a phase reads: the fastest of what fits.

    That is the largest micro-batch that fits, and recomputation only where not even one sequence fits without. Where
    nothing fits it is the least that can be tried.

    Args:
        cost: of the phase.
        config: the run.
        index: of the phase.
        gpu: whose memory a rank has to itself.
        ranks: that share a batch.
        on_gpu: whether they compute on GPUs.

    Raises:
        LongformerError: a batch cannot be divided over the ranks.
    """
    if not config.leaves_open(index):
        return config
    for choice in _choices(config, index, ranks):
        if fits(phase_memory(cost, choice, index, ranks=ranks, on_gpu=on_gpu), gpu):
            break
    return choice


def _choices(config: RunConfig, index: int, ranks: int) -> Iterator[RunConfig]:
    """Yields the config with all values that its `auto` may take, the fastest first."""
    phase, recompute = config.phases[index], config.training.activation_checkpointing
    for recomputed in (False, True) if recompute == "auto" else (recompute,):
        for size in phase.micro_batch_sizes(ranks):
            yield changed(
                config, training={"activation_checkpointing": recomputed}, phase=(index, {"micro_batch_size": size})
            )


@dataclass(frozen=True)
class Fit:
    """Settings with which a phase fits."""

    micro_batch_size: int
    training: dict[str, Any]
    """What is to change in the run file's training section."""


def first_fit(cost: TrainingCost, config: RunConfig, index: int, gpu: Gpu, *, gpus: int) -> Fit | None:
    """Returns the first setting that fits, the cheapest tried first: smaller micro-batches, then less kept.

    Args:
        cost: of the phase.
        config: the run.
        index: of the phase.
        gpu, gpus: as in `forecast`.

    Returns:
        None where no setting fits.
    """
    sizes = divisors(config.phases[index].batching(gpus).micro_batch_size)
    for training in (
        {},
        {"activation_checkpointing": True},
        {"activation_checkpointing": True, "zero_stage": max(2, config.training.zero_stage)},
        {"activation_checkpointing": True, "zero_stage": 3},
    ):
        for size in sizes:
            attempt = changed(config, training=training, phase=(index, {"micro_batch_size": size}))
            if fits(phase_memory(cost, attempt, index, ranks=gpus, on_gpu=True), gpu):
                return Fit(size, training)
    return None
