"""What continued pretraining of a Longformer costs at a shape: operations and memory, by formula."""

import torch
from torch import nn

from longformer.cost import MemoryEstimate, Precision, memory_estimate
from longformer.encoder_cost import kept_numbers, shape_of
from longformer.models.heads import LongformerForMaskedLM
from longformer.models.longformer_config import LongformerConfig
from longformer.models.masked_lm_loss import ROWS


def parameter_count(config: LongformerConfig) -> int:
    """Return the number of weights of a `LongformerForMaskedLM`; those that two parts share count once."""
    return sum(parameter.numel() for parameter in _without_numbers(config).parameters())


def trained_count(config: LongformerConfig) -> int:
    """Return how many of them pretraining changes: all but the global projections."""
    model = _without_numbers(config)
    return parameter_count(config) - sum(parameter.numel() for parameter in global_projections(model))


def global_projections(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the projections that only global tokens use."""
    return [parameter for name, parameter in model.named_parameters() if "_global." in name]


def _without_numbers(config: LongformerConfig) -> LongformerForMaskedLM:
    with torch.device("meta"):
        return LongformerForMaskedLM(config)


def training_flops_per_token(config: LongformerConfig, sequence_length: int, *, masked: float) -> float:
    """Return the useful floating-point operations to train on one token: three times the forward pass.

    Attention counts visible pairs only; the head works on labelled positions only. Not counted: what is computed
    again in the backward pass.

    Args:
        config: the model.
        sequence_length: tokens of a row.
        masked: share of the tokens that are predicted.
    """
    width, inner = config.hidden_size, config.intermediate_size
    layers = 2.0 * config.num_hidden_layers * (4 * width**2 + 2 * width * inner)
    head = 2.0 * masked * (width**2 + width * config.vocab_size)
    heads, head_size = config.num_attention_heads, width // config.num_attention_heads
    attention = sum(
        heads * config.band(layer).forward_flops(sequence_length, head_size) / sequence_length
        for layer in range(config.num_hidden_layers)
    )
    return 3 * (layers + head + attention)


def training_memory(
    config: LongformerConfig,
    *,
    weights: int,
    trained: int,
    sequence_length: int,
    micro_batch_size: int,
    ranks: int,
    zero_stage: int,
    precision: Precision,
    activation_checkpointing: bool,
) -> MemoryEstimate:
    """Return the memory that one rank needs to train.

    Args:
        config: the model.
        weights: number of its weights.
        trained: those of them that are trained.
        sequence_length: tokens of a row.
        micro_batch_size: rows per forward pass on this rank.
        ranks, zero_stage, precision, activation_checkpointing: as in `longformer.cost.training_memory`.
    """
    shape = shape_of(config)
    kept = kept_numbers(shape, sequence_length)
    if activation_checkpointing:
        kept = shape.layers * sequence_length * shape.width + kept // shape.layers
    # The hidden states at the head, and what the layer at work holds for a moment.
    at_work = sequence_length * (2 * shape.width + max(4 * shape.width, 2 * shape.inner_width))
    return memory_estimate(
        weights=weights,
        trained=trained,
        activations=micro_batch_size * (kept + at_work),
        # Logits and their gradient, for some rows at a time.
        float32_activations=2 * ROWS * config.vocab_size,
        ranks=ranks,
        zero_stage=zero_stage,
        precision=precision,
    )
