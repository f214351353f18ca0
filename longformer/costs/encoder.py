"""What the encoder of a Longformer or an LED is, whatever its config calls it, and the memory it needs at a length.

Memory is an estimate by formula, which a test holds against the models. It is linear in the length.
"""

from dataclasses import dataclass

from longformer.cpu.linear import CHUNK
from longformer.models.led.config import LEDConfig
from longformer.models.longformer.config import LongformerConfig

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class EncoderShape:
    """The numbers that cost depends on."""

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


def encoder_memory(shape: EncoderShape, *, parameters: int, length: int) -> EncoderMemory:
    """Returns what a model needs to read, and to learn from, a text of so many tokens.

    Args:
        shape: of its encoder.
        parameters: number of all its weights.
        length: tokens of the text.
    """
    # Keys and values of the text, in every layer of the decoder.
    shown = length * 2 * shape.width * shape.decoder_layers
    # The hidden states; queries, keys, values and attended values.
    reading = parameters + length * (1 + 4) * shape.width + shown
    # Weights, their gradients and AdamW's two averages.
    training = 4 * parameters + activations(shape, length, activation_checkpointing=False) + shown
    return EncoderMemory(reading=FLOAT32_BYTES * reading, training=FLOAT32_BYTES * training)


def activations(
    shape: EncoderShape,
    length: int,
    *,
    texts: int = 1,
    activation_checkpointing: bool,
    on_gpu: bool = False,
    half_precision: bool = False,
) -> int:
    """Returns the most numbers that the encoder's layers hold while they train on some texts.

    Args:
        shape: of the encoder.
        length: tokens of a text.
        texts: how many there are.
        activation_checkpointing: keep only each layer's input, and one layer at a time in full.
        on_gpu: whether they train on a GPU.
        half_precision: whether weights and hidden states are bfloat16 or float16.
    """
    kept = saved_numbers(shape, length, on_gpu=on_gpu, half_precision=half_precision)
    if activation_checkpointing:
        kept = shape.layers * length * shape.width + kept // shape.layers
    # While attention is at work: its output's gradient, and queries, keys, values and attended values. It follows on
    # the feed-forward part, whose inside is then gone.
    attending = texts * length * (1 + 4) * shape.width
    return texts * kept + max(attending, _feed_forward(shape, texts * length, on_gpu=on_gpu))


def _feed_forward(shape: EncoderShape, tokens: int, *, on_gpu: bool) -> int:
    """Returns how many numbers a feed-forward part holds while it learns from so many tokens."""
    if on_gpu:
        return tokens * (shape.width + 2 * shape.inner_width)
    # Both sides of the activation with their gradients; two weights transposed, two gradients, a share of one.
    wide, of_weights = 4 * min(CHUNK, tokens) * shape.inner_width, 5 * shape.width * shape.inner_width
    return 2 * tokens * shape.width + wide + of_weights


def saved_numbers(shape: EncoderShape, length: int, *, on_gpu: bool = False, half_precision: bool = False) -> int:
    """Returns how many numbers the encoder's layers keep for the backward pass on one text, all alike."""
    # The layer's input, queries, keys and values, attended values, and input of the feed-forward part; on a GPU also
    # input and output of the activation. A CPU computes them again (longformer/cpu/sublayers.py).
    of_width = 1 + 3 + 1 + 1 + (2 if saves_norm_inputs(on_gpu=on_gpu, half_precision=half_precision) else 0)
    return shape.layers * length * (of_width * shape.width + (2 * shape.inner_width if on_gpu else 0))


def saves_norm_inputs(*, on_gpu: bool, half_precision: bool) -> bool:
    """Returns whether layers keep what they are about to normalise (longformer/cpu/residual.py)."""
    return on_gpu or half_precision
