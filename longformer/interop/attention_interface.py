"""Banded attention as an attention implementation of transformers, for every model that lets one choose.

Models with sliding windows of their own (ModernBERT, Mistral) keep them; encoders without get one.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.attention.op import banded_attention


def register_attention(name: str = "longformer", *, window: int | None = None) -> None:
    """Lets `Model.from_pretrained(..., attn_implementation=name)` use banded attention.

    Args:
        name: how transformers will know it.
        window: neighbours that a token sees, both sides together (one side in a causal model), in layers that do
            not say so themselves; None = such layers see everything.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, partial(attend, window=window))
    AttentionMaskInterface.register(name, padding_mask)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    window: int | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attends as transformers asks: (batch, heads, positions, head_dim) in, (batch, positions, heads, head_dim) out.

    `sliding_window` counts a token itself and those on one side, as theirs does.

    Raises:
        ValueError: there are more keys than queries, as when text is generated with a cache.
    """
    if query.shape[2] != key.shape[2]:
        raise ValueError("banded attention needs as many queries as keys; generate with use_cache=False")
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if sliding_window is not None:
        side = sliding_window - 1
    elif window is not None:
        side = window if causal else window // 2
    else:
        return attend_everywhere(query, key, value, attention_mask, causal, scaling, dropout), None
    attended = banded_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        left=side,
        right=0 if causal else side,
        causal=causal,
        token_mask=attention_mask,
        scale=scaling,
        dropout=dropout,
    )
    return attended, None


def attend_everywhere(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    token_mask: Tensor | None,
    causal: bool,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Attends without a band, for the layers between that see everything."""
    mask = None if token_mask is None else token_mask[:, None, None, :]
    if mask is not None and causal:
        positions = torch.arange(query.shape[2], device=query.device)
        mask, causal = mask & (positions <= positions[:, None]), False
    attended = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scaling, dropout_p=dropout
    )
    return attended.transpose(1, 2)


def padding_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> Tensor | None:
    """Returns bool (batch, positions), True = token, in place of a quadratic mask; None without padding."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask.bool()
