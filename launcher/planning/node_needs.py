"""What a run needs of each machine beside its GPUs: processors and memory."""

from dataclasses import dataclass

from launcher.config.run_config import RunConfig
from launcher.planning.gpu_plan import checkpoint_bytes
from launcher.planning.plan import phase_cost
from launcher.tasks.registry import task_of

_GIB = 2**30
_OF_A_RANK = {"cpu": 2 * _GIB, "gpu": 6 * _GIB}
"""What Python, PyTorch, DeepSpeed and, of a GPU, CUDA hold of a machine's memory in every rank."""
_OF_A_LOADER = _GIB // 2
_OF_THE_DRIVER = 2 * _GIB
_MARGIN = 1.25
"""Formulas of memory are within 15 % of what was measured."""


@dataclass(frozen=True)
class NodeNeeds:
    """What the ranks of one machine need."""

    processors: int
    memory: int
    """Bytes."""


def node_needs(config: RunConfig, *, ranks: int, ranks_of_node: int, on_gpu: bool) -> NodeNeeds:
    """Returns what a machine must have where `ranks_of_node` of all ranks work.

    Raises:
        LongformerError: the batches cannot be divided over the ranks, or the model's size is not known.
    """
    training, loaders = config.training, config.data.loader_workers
    indexes = range(len(config.phases))
    parameters = task_of(config).parameters()
    # At the end of a phase every rank has all weights in fp32.
    held = 4 * parameters
    if on_gpu and training.checkpoint_in_background:
        held += checkpoint_bytes(parameters, training.precision, training.zero_stage) // ranks
    if not on_gpu:
        held += max(phase_cost(config, index, ranks=ranks, on_gpu=False).memory.total for index in indexes)
    rank = _OF_A_RANK["gpu" if on_gpu else "cpu"] + loaders * _OF_A_LOADER + round(_MARGIN * held)
    return NodeNeeds(processors=ranks_of_node * (1 + loaders), memory=_OF_THE_DRIVER + ranks_of_node * rank)
