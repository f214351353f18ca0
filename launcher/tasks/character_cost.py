"""What a phase of a character run costs, by the formulas of longformer/cost.py."""

from launcher.tasks.character_sections import CharacterRun
from longformer.cost import MemoryEstimate, training_memory


def phase_memory(config: CharacterRun, index: int, *, vocabulary_size: int, ranks: int) -> MemoryEstimate:
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
