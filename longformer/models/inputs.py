"""The border of a Longformer model: what a user hands in is checked here, once, and turned into what layers need.

Everything that must be known on the host (wrong values, number of global tokens, amount of padding) is read from
the device in one go; behind the border nothing waits for it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longformer.attention.packing import Packing
from longformer.attention.tokens import GlobalTokens, Tokens
from longformer.models.batch_facts import BatchFacts
from longformer.models.longformer_config import LongformerConfig

# Taking padding out costs a copy of queries, keys, values and results in every layer. Measured on a CPU that is won
# back when 3 % of the positions are padding (at 40 % a layer takes half the time); the margin is for devices whose
# memory is slower beside their arithmetic.
PADDING_WORTH_REMOVING = 0.1


@dataclass(frozen=True)
class ModelInputs:
    """A checked batch."""

    tokens: Tokens
    position_ids: Tensor
    """(batch, positions) long."""
    token_type_ids: Tensor
    """(batch, positions) long."""
    input_ids: Tensor | None
    """(batch, positions) long, or None when embeddings were given."""
    inputs_embeds: Tensor | None
    """(batch, positions, hidden_size), or None when ids were given."""


def read_inputs(
    config: LongformerConfig,
    *,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    global_attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> ModelInputs:
    """Check a batch and describe it; arguments as in `LongformerModel.forward`.

    Raises:
        ValueError: neither or both of input_ids and inputs_embeds are given, or a shape does not fit.
        LongformerError: ids, positions or masks hold values that the model cannot take.
    """
    given = inputs_embeds if input_ids is None else input_ids
    if given is None or (input_ids is not None and inputs_embeds is not None):
        raise ValueError("give either input_ids or inputs_embeds")
    shape, device = given.shape[:2], given.device
    if len(shape) != 2 or not shape.numel():
        raise ValueError(f"input_ids must be (batch, positions) and not empty, got {tuple(shape)}")
    for name, tensor in (
        ("attention_mask", attention_mask),
        ("global_attention_mask", global_attention_mask),
        ("token_type_ids", token_type_ids),
        ("position_ids", position_ids),
    ):
        if tensor is not None and tensor.shape[-1:] != shape[-1:]:
            raise ValueError(f"{name} must have {shape[-1]} positions like the input, got {tuple(tensor.shape)}")

    if token_type_ids is None:
        token_type_ids = torch.zeros(shape, dtype=torch.long, device=device)
    if position_ids is None:
        position_ids = default_positions(input_ids, shape, config.pad_token_id, device)
    position_ids, token_type_ids = position_ids.expand(shape), token_type_ids.expand(shape)
    facts = BatchFacts.of(attention_mask, global_attention_mask, position_ids, token_type_ids, input_ids)
    facts.check(config)

    token_mask = global_tokens = packing = None
    if attention_mask is not None and facts.padded:
        token_mask = attention_mask.bool()
        if facts.padding_is_alike and PADDING_WORTH_REMOVING * shape.numel() <= facts.padded < shape.numel():
            packing = Packing.of(token_mask)
    if global_attention_mask is not None and facts.most_globals:
        global_tokens = GlobalTokens.of(global_attention_mask.bool(), facts.most_globals)
    return ModelInputs(
        Tokens(token_mask, global_tokens, packing), position_ids, token_type_ids, input_ids, inputs_embeds
    )


def default_positions(input_ids: Tensor | None, shape: torch.Size, padding_id: int, device: torch.device) -> Tensor:
    """Return Hugging Face's position ids: tokens count from padding_id + 1 on, padding stands at padding_id.

    Without ids every position counts as a token.
    """
    if input_ids is None:
        return torch.arange(padding_id + 1, padding_id + 1 + shape[1], device=device).expand(shape)
    is_token = input_ids != padding_id
    return is_token.cumsum(1) * is_token + padding_id
