"""What it costs to teach an LED to summarize: operations and memory at a shape, by formula."""

from longformer.costs.encoder import activations, saves_norm_inputs, shape_of
from longformer.costs.memory import MemoryEstimate, TrainingLayout, Weights, memory_estimate
from longformer.models.common.token_loss import CHUNK
from longformer.models.led.config import LEDConfig


def training_flops(config: LEDConfig, source_length: int, *, target_length: int) -> float:
    """Returns the useful floating-point operations to train on one document: three times the forward pass.

    Attention counts visible pairs only, and the first token's as global (semantics.md 5). Not counted: what is computed
    again in the backward pass.

    Args:
        config: the model.
        source_length: tokens of a document.
        target_length: tokens of its summary.
    """
    width, heads = config.d_model, config.encoder_attention_heads
    encoder = config.encoder_layers * 2.0 * (4 * width**2 + 2 * width * config.encoder_ffn_dim)
    local = sum(
        heads * config.band(layer).forward_flops(source_length, width // heads)
        for layer in range(config.encoder_layers)
    )
    # One global row: its keys and values of all tokens are absorbed, its products are those of one query per head.
    global_rows = config.encoder_layers * 4.0 * heads * width * source_length
    shown = config.decoder_layers * 2.0 * 2 * width**2
    own_layers = 6 * width**2 + 2 * width * config.decoder_ffn_dim
    pairs = target_length * source_length + target_length**2 / 2
    decoder = target_length * 2.0 * (config.decoder_layers * own_layers + width * config.vocab_size)
    decoder += config.decoder_layers * 4.0 * width * pairs
    return 3 * (source_length * (encoder + shown) + local + global_rows + decoder)


def training_memory(
    config: LEDConfig, layout: TrainingLayout, weights: Weights, *, source_length: int, target_length: int
) -> MemoryEstimate:
    """Returns the memory that one rank needs to train.

    Args:
        config: the model.
        layout: how training is laid out.
        weights: of the model.
        source_length, target_length: tokens of a document and of its summary.
    """
    width = config.d_model
    checkpointing = layout.activation_checkpointing
    read = activations(
        shape_of(config),
        source_length,
        texts=layout.micro_batch_size,
        activation_checkpointing=checkpointing,
        on_gpu=layout.keeps_all,
        half_precision=layout.half_precision,
    )
    # Two attentions and the feed-forward part, and what their three norms are given.
    sums = 3 if saves_norm_inputs(on_gpu=layout.keeps_all, half_precision=layout.half_precision) else 0
    inner = 2 * config.decoder_ffn_dim if layout.keeps_all else 0
    written = config.decoder_layers * target_length * ((11 + sums) * width + inner)
    # Keys and values of the document, in every layer of the decoder.
    shown = config.decoder_layers * 2 * source_length * width
    if checkpointing:
        written = config.decoder_layers * target_length * width + written // config.decoder_layers
        shown //= config.decoder_layers
    last_states = source_length * width
    return memory_estimate(
        layout,
        weights,
        activations=read + layout.micro_batch_size * (last_states + written + shown),
        # Logits and their gradient, for a chunk at a time.
        float32_activations=2 * min(CHUNK, layout.micro_batch_size * target_length) * config.vocab_size,
    )
