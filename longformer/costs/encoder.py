"""What the encoder of a Longformer or an LED is, whatever its config calls it, and the memory it needs at a length."""

from dataclasses import dataclass

from longformer.costs.memory import TrainingLayout
from longformer.costs.training import TrainingCost
from longformer.models.common.weightless import without_weights
from longformer.models.led.config import LEDConfig
from longformer.models.led.model import LEDModel
from longformer.models.longformer.config import LongformerConfig
from longformer.models.longformer.model import LongformerModel
from longformer.training.objectives import Lengths

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class EncoderShape:
    """Its sizes."""

    positions: int
    """Tokens of the longest text."""
    layers: int
    width: int
    heads: int
    inner_width: int
    """Of the feed-forward parts."""
    decoder_layers: int
    """0 without a decoder."""


@dataclass(frozen=True)
class EncoderMemory:
    """Bytes for one text in float32, weights included; of an LED, its decoder's own text is not counted."""

    reading: int
    """Without gradients."""
    training: int
    """Forward and backward with AdamW on a CPU, without activation checkpointing."""


def shape_of(config: LongformerConfig | LEDConfig) -> EncoderShape:
    """Returns the shape of a config's encoder."""
    if isinstance(config, LEDConfig):
        return EncoderShape(
            positions=config.max_encoder_position_embeddings,
            layers=config.encoder_layers,
            width=config.d_model,
            heads=config.encoder_attention_heads,
            inner_width=config.encoder_ffn_dim,
            decoder_layers=config.decoder_layers,
        )
    return EncoderShape(
        positions=config.max_tokens,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        inner_width=config.intermediate_size,
        decoder_layers=0,
    )


def encoder_memory(config: LongformerConfig | LEDConfig, *, parameters: int, length: int) -> EncoderMemory:
    """Returns what a model needs to read, and to learn from, a text of so many tokens.

    Args:
        config: of the model.
        parameters: number of all its weights.
        length: tokens of the text.
    """
    with without_weights():
        model = LEDModel(config) if isinstance(config, LEDConfig) else LongformerModel(config)
    shape = shape_of(config)
    # The hidden states; queries, keys, values and attended values; keys and values of the text in the whole decoder.
    reading = parameters + length * shape.width * (1 + 4 + 2 * shape.decoder_layers)
    cost = TrainingCost(model, [Lengths(length)], predictions=lambda text: 0, global_tokens=1)
    layout = TrainingLayout(micro_batch_size=1, ranks=1, zero_stage=0, precision="fp32", activation_checkpointing=False)
    # Weights, their gradients and AdamW's two averages.
    training = 4 * parameters + cost.activations(layout)
    return EncoderMemory(reading=FLOAT32_BYTES * reading, training=FLOAT32_BYTES * training)
