"""What a run needs of each machine beside its GPUs: processors and memory."""

from dataclasses import dataclass

from data_pipeline.errors import DataError
from launcher.config.run_config import RunConfig
from launcher.planning.fit import phase_memory
from launcher.planning.gpu_plan import checkpoint_bytes
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError

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
    memory: int | None
    """Bytes; None where the model is not there yet."""


def node_needs(config: RunConfig, *, ranks: int, ranks_of_node: int, on_gpu: bool) -> NodeNeeds:
    """Returns what a machine must have where `ranks_of_node` of all ranks work, which can share the batches."""
    try:
        memory = _memory(config, ranks=ranks, ranks_of_node=ranks_of_node, on_gpu=on_gpu)
    except (LongformerError, DataError):
        memory = None
    return NodeNeeds(processors=ranks_of_node * (1 + config.data.loader_workers), memory=memory)


def _memory(config: RunConfig, *, ranks: int, ranks_of_node: int, on_gpu: bool) -> int:
    training, parameters = config.training, task_of(config).parameters()
    # At the end of a phase every rank has all weights in fp32.
    held = 4 * parameters
    if on_gpu and training.checkpoint_in_background:
        held += checkpoint_bytes(parameters, training.precision, training.zero_stage) // ranks
    if not on_gpu or training.offload_optimizer:
        costs = [task_of(config).cost(index) for index in range(len(config.phases))]
        memory = [phase_memory(cost, config, index, ranks=ranks, on_gpu=on_gpu) for index, cost in enumerate(costs)]
        held += max(each.offloaded if on_gpu else each.total for each in memory)
    own = _OF_A_RANK["gpu" if on_gpu else "cpu"] + config.data.loader_workers * _OF_A_LOADER
    return _OF_THE_DRIVER + ranks_of_node * (own + round(_MARGIN * held))
