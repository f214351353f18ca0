"""What continued pretraining of a Longformer costs at a shape: operations and memory, by formula."""

from torch import nn

from longformer.costs.encoder import activations, shape_of
from longformer.costs.memory import MemoryEstimate, TrainingLayout, memory_estimate
from longformer.models.common.token_loss import CHUNK
from longformer.models.longformer.config import LongformerConfig


def parameter_count(config: LongformerConfig) -> int:
    """Returns the number of weights of a `LongformerForMaskedLM`; those that two parts share count once."""
    width, inner = config.hidden_size, config.intermediate_size
    norm = 2 * width
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    # Six projections, of which three are global, and the output; the feed-forward part; two norms.
    layer = 7 * _square(config) + 2 * width * inner + inner + width + 2 * norm
    output = 0 if config.tie_word_embeddings else config.vocab_size * width
    head = _square(config) + norm + config.vocab_size + output
    return rows * width + norm + config.num_hidden_layers * layer + head


def trained_count(config: LongformerConfig) -> int:
    """Returns how many of them pretraining changes: all but the global projections."""
    return parameter_count(config) - 3 * config.num_hidden_layers * _square(config)


def global_projections(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters of the projections that only global tokens use."""
    return [parameter for name, parameter in model.named_parameters() if "_global." in name]


def _square(config: LongformerConfig) -> int:
    """Returns the weights of a linear map from hidden states to hidden states."""
    return config.hidden_size**2 + config.hidden_size


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
    config: LongformerConfig, layout: TrainingLayout, *, weights: int, trained: int, sequence_length: int
) -> MemoryEstimate:
    """Returns the memory that one rank needs to train.

    Args:
        config: the model.
        layout: how training is laid out.
        weights: number of its weights.
        trained: those of them that are trained.
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
        weights=weights,
        trained=trained,
        activations=of_layers + at_head,
        # Logits and their gradient, for a chunk at a time.
        float32_activations=2 * min(CHUNK, layout.micro_batch_size * sequence_length) * config.vocab_size,
    )
