"""What a phase of a character run costs, by the formulas of longformer/costs/char_lm.py."""

from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.training_layout import training_layout
from longformer.costs.char_lm import training_memory
from longformer.costs.memory import MemoryEstimate


def phase_memory(config: CharacterRun, index: int, *, vocabulary_size: int, ranks: int) -> MemoryEstimate:
    """Return what a rank needs for model, optimizer and activations in a phase, in bytes."""
    return training_memory(
        config.character_model(index, vocabulary_size),
        training_layout(config, index, ranks=ranks),
        sequence_length=config.phases[index].sequence_length,
    )
