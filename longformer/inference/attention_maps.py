"""Who attends to whom in a model that reads one text, as dense matrices: for pictures of short texts."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.inference.classification import IDS, Inputs
from longformer.models.char_lm.attention import CausalSelfAttention, Projections
from longformer.models.char_lm.model import CharacterLM


@torch.no_grad()
def character_attention(model: CharacterLM, tokens: Tensor) -> list[Tensor]:
    """Returns every layer's probabilities, (heads, positions, positions), for one text.

    Attention is linear in its values: with unit vectors as values it gives its own probabilities, whatever the engine,
    the dilations and the kind of positions.

    Args:
        model: in evaluation mode.
        tokens: (positions,) long.
    """
    maps: list[Tensor] = []

    def read_off(attention: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(attention, CausalSelfAttention)
        maps.append(_probabilities(attention, attention.project(*arguments)))

    hooks = [layer.attention.register_forward_pre_hook(read_off) for layer in model.layers]  # type: ignore[union-attr]
    try:
        model(tokens[None])
    finally:
        for hook in hooks:
            hook.remove()
    return maps


@torch.no_grad()
def encoder_attention(encoder: nn.Module, ids: Tensor, global_mask: Tensor | None) -> list[Tensor]:
    """Returns every layer's probabilities, (heads, positions, positions), for one text.

    Args:
        encoder: a LongformerModel or the encoder of an LED, in evaluation mode.
        ids: (positions,) long.
        global_mask: (positions,), 1 for global tokens; None: there are none.
    """
    mask = None if global_mask is None else global_mask[None]
    output = encoder(input_ids=ids[None], global_attention_mask=mask, output_attentions=True)
    global_positions = torch.empty(0, dtype=torch.long) if global_mask is None else global_mask.nonzero().flatten()
    of_global = output.global_attentions or (None,) * len(output.attentions)
    return [
        dense_map(local[0], None if rows is None else rows[0], global_positions)
        for local, rows in zip(output.attentions, of_global, strict=True)
    ]


@torch.no_grad()
def first_token_attention(model: Any, inputs: Inputs) -> Tensor:
    """Returns how much the first token attends to every position, (positions,), the mean of the last layer's heads.

    Where it is not global, it attends to its window only.

    Args:
        model: a classifier in evaluation mode.
        inputs: what it reads of one text.
    """
    output = model(**{name: torch.as_tensor(values)[None] for name, values in inputs.items()}, output_attentions=True)
    if output.global_attentions is not None:
        of_global: Tensor = output.global_attentions[-1]
        return of_global[0, :, :, 0].mean(0)
    local = output.attentions[-1][0, :, 0].mean(0)
    window = local[len(local) // 2 :][: len(inputs[IDS])]
    return functional.pad(window, (0, len(inputs[IDS]) - len(window)))


def dense_map(local: Tensor, of_global_tokens: Tensor | None, global_positions: Tensor) -> Tensor:
    """Returns (heads, positions, positions) of one text's probabilities in Hugging Face's format (semantics.md 1.4).

    Args:
        local: (heads, positions, global tokens + window + 1).
        of_global_tokens: (heads, positions, global tokens), what global tokens pay to every position; None: no such.
        global_positions: (global tokens,) long.
    """
    heads, positions, columns = local.shape
    side = (columns - len(global_positions)) // 2
    dense = local.new_zeros(heads, positions, positions + 2 * side)
    index = torch.arange(positions)[:, None] + torch.arange(2 * side + 1)
    dense.scatter_(2, index.expand(heads, -1, -1), local[:, :, len(global_positions) :])
    dense = dense[:, :, side : side + positions].clone()
    dense[:, :, global_positions] += local[:, :, : len(global_positions)]
    if of_global_tokens is not None:
        dense[:, global_positions] = of_global_tokens.transpose(1, 2)
    return dense


def _probabilities(attention: CausalSelfAttention, projections: Projections) -> Tensor:
    positions, heads, size = projections.key.shape[1:]
    unit_vectors = torch.eye(positions).to(projections.value)
    parts = []
    for start in range(0, positions, size):
        some = unit_vectors[:, start : start + size]
        value = torch.zeros(1, positions, heads, size).to(projections.value)
        value[..., : some.shape[1]] = some[None, :, None]
        parts.append(attention.attend(projections._replace(value=value))[0, ..., : some.shape[1]])
    return torch.cat(parts, dim=-1).transpose(0, 1).float()
