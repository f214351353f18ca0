"""Global attention as PyTorch operators with gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, library

from longformer.attention.fused.global_launch import GlobalAttentionCall
from longformer.attention.fused.launch import Call
from longformer.attention.fused.layout import BatchLayout
from longformer.attention.fused.op import readable


@library.custom_op("longformer::fused_global_attention", mutates_args=())
def fused_global_attention_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Sequence[Tensor],
    seed: Tensor | None,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Returns the output (batch, count, heads, head_dim) and lse (batch, heads, count) float32.

    Args:
        query: (batch, count, heads, head_dim).
        key, value: (batch, positions, heads, head_dim).
        layout: the tensors of a `BatchLayout` that concern padding, or nothing.
        seed: (1,) int64 on the device of the query, or None without dropout.
    """
    with torch.cuda.device_of(query):
        return _call(query, key, value, layout, seed, scale, dropout).forward()


@library.custom_op("longformer::fused_global_attention_backward", mutates_args=())
def fused_global_attention_backward_op(
    d_out: Tensor,
    output: Tensor,
    lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Sequence[Tensor],
    seed: Tensor | None,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of query, key and value."""
    with torch.cuda.device_of(query):
        call = _call(query, key, value, layout, seed, scale, dropout)
        return call.backward(output, lse, readable(d_out))


@fused_global_attention_op.register_fake
def _forward_shapes(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, count, heads, _width = query.shape
    return query.new_empty(query.shape), query.new_empty(batch, heads, count, dtype=torch.float32)


@fused_global_attention_backward_op.register_fake
def _backward_shapes(
    d_out: Tensor, output: Tensor, lse: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, layout, seed, *options = inputs
    ctx.options = options
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, query, key, value, seed, *layout)


def _backward(ctx: Any, d_out: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    output, lse, query, key, value, seed, *layout = ctx.saved_tensors
    gradients = fused_global_attention_backward_op(d_out, output, lse, query, key, value, layout, seed, *ctx.options)
    return *gradients, [None] * len(layout), None, *(None for _ in ctx.options)


fused_global_attention_op.register_autograd(_backward, setup_context=_remember)


def _call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Sequence[Tensor],
    seed: Tensor | None,
    scale: float,
    dropout: float,
) -> GlobalAttentionCall:
    key = readable(key)
    tokens = Call(
        query=key,
        key=key,
        value=readable(value),
        left=0,
        right=0,
        dilations=(1,),
        causal=False,
        scale=scale,
        layout=BatchLayout.from_tensors(layout),
        dropout=dropout,
        seed=seed,
    )
    return GlobalAttentionCall(readable(query), tokens)
