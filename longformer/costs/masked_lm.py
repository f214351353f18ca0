"""What continued pretraining of a Longformer costs at a shape: operations and memory, by formula."""

from longformer.costs.encoder import activations, shape_of
from longformer.costs.memory import MemoryEstimate, TrainingLayout, Weights, memory_estimate
from longformer.models.common.token_loss import CHUNK
from longformer.models.longformer.config import LongformerConfig


def training_flops(config: LongformerConfig, tokens: int, *, masked: float) -> float:
    """Returns the useful floating-point operations to train on one text: three times the forward pass.

    Attention counts visible pairs only; the head works on labelled positions only. Not counted: what is computed
    again in the backward pass.

    Args:
        config: the model.
        tokens: of the text.
        masked: share of the tokens that are predicted.
    """
    width, inner = config.hidden_size, config.intermediate_size
    layers = 2.0 * config.num_hidden_layers * (4 * width**2 + 2 * width * inner)
    head = 2.0 * masked * (width**2 + width * config.vocab_size)
    heads, head_size = config.num_attention_heads, width // config.num_attention_heads
    attention = sum(
        heads * config.band(layer).forward_flops(tokens, head_size) for layer in range(config.num_hidden_layers)
    )
    return 3 * (tokens * (layers + head) + attention)


def training_memory(
    config: LongformerConfig, layout: TrainingLayout, weights: Weights, *, sequence_length: int
) -> MemoryEstimate:
    """Returns the memory that one rank needs to train.

    Args:
        config: the model.
        layout: how training is laid out.
        weights: of the model.
        sequence_length: tokens of a row.
    """
    of_layers = activations(
        shape_of(config),
        sequence_length,
        texts=layout.micro_batch_size,
        activation_checkpointing=layout.activation_checkpointing,
        on_gpu=layout.keeps_all,
        half_precision=layout.half_precision,
    )
    at_head = layout.micro_batch_size * sequence_length * config.hidden_size
    return memory_estimate(
        layout,
        weights,
        activations=of_layers + at_head,
        # Logits and their gradient, for a chunk at a time.
        float32_activations=2 * min(CHUNK, layout.micro_batch_size * sequence_length) * config.vocab_size,
    )
