"""How a phase of a run file is laid out over ranks, in the words of the memory formulas."""

from launcher.config.run_config import RunConfig
from longformer.costs.memory import TrainingLayout


def training_layout(config: RunConfig, index: int, *, ranks: int, on_gpu: bool = False) -> TrainingLayout:
    """Return the layout of a phase.

    Raises:
        LongformerError: its batch cannot be divided over the ranks.
    """
    return TrainingLayout(
        micro_batch_size=config.phases[index].batching(ranks).micro_batch_size,
        ranks=ranks,
        zero_stage=config.training.zero_stage,
        precision=config.training.precision,
        activation_checkpointing=config.training.activation_checkpointing,
        on_gpu=on_gpu,
    )
