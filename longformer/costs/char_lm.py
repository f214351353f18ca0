"""Cost of the character language model at a shape: floating-point operations and memory, by formula.

Used by the plan before a run, by the metrics during it and by the report after it. Tests hold every formula against
the real model.
"""

from longformer.attention.band import Band
from longformer.costs.memory import MemoryEstimate, TrainingLayout, Weights, memory_estimate
from longformer.models.char_lm.config import CharacterModelConfig


def training_flops(config: CharacterModelConfig, positions: int) -> float:
    """Returns the useful floating-point operations to train on one sequence: three times the forward pass.

    Attention counts visible pairs only. Not counted: whatever is computed again by activation checkpointing, and
    the product W_r R of transformer_xl, which a whole batch shares.

    Args:
        config: the model.
        positions: characters of the sequence; near its start the bands are shorter.
    """
    width = config.hidden_size
    products = 4 * width**2 + 2 * width * config.feedforward_size
    forward = 2.0 * positions * (config.layers * products + width * config.vocabulary_size)
    # The distance term of transformer_xl is a third product over the same pairs.
    per_pair = 1.5 if config.position == "transformer_xl" else 1.0
    for layer in range(config.layers):
        for dilation in config.head_dilations(layer):
            band = Band(config.windows[layer], 0, dilation)
            forward += per_pair * band.forward_flops(positions, config.head_size)
    return 3 * forward


def training_memory(
    config: CharacterModelConfig, layout: TrainingLayout, weights: Weights, *, sequence_length: int
) -> MemoryEstimate:
    """Returns the memory that one rank needs to train.

    Args:
        config: the model; its own `activation_checkpointing` is not looked at.
        layout: how training is laid out.
        weights: of the model.
        sequence_length: positions of a sequence.
    """
    sequences = layout.micro_batch_size
    layers = [_layer_activations(config, layer, sequence_length, sequences) for layer in range(config.layers)]
    layer_inputs = config.layers * sequences * sequence_length * config.hidden_size
    kept = layer_inputs + (max(layers) if layout.activation_checkpointing else sum(layers))
    positions = sequences * sequence_length
    return memory_estimate(
        layout,
        weights,
        activations=kept + positions * _end_activations(config),
        float32_activations=positions * config.vocabulary_size,
    )


def _layer_activations(config: CharacterModelConfig, layer: int, sequence_length: int, batch: int) -> int:
    """Returns how many numbers a layer keeps for its backward pass, besides its input."""
    width, inner = config.hidden_size, config.feedforward_size
    # Input of the packed projection, the packed projection (values are read in place), two tensors like queries
    # (rotated queries and keys, or queries with either bias), attended values, stream and input of the feed-forward.
    per_position = (1 + 3 + 2 + 1 + 1 + 1) * width + 2 * inner
    if config.dropout:
        per_position += 2 * width + inner
    columns = 0
    if config.position == "transformer_xl":
        # Sinusoids per dilation, and the relative keys.
        kinds = len(set(config.head_dilations(layer)))
        columns = (1 + kinds * (2 if config.dropout else 1)) * min(config.windows[layer] + 1, sequence_length)
    return batch * sequence_length * per_position + columns * width


def _end_activations(config: CharacterModelConfig) -> int:
    """Returns how many numbers per position embedding, last norm and output keep."""
    return (4 if config.dropout else 2) * config.hidden_size
