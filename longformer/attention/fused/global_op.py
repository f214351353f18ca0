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
    max_seqlen: int,
    seed: Tensor | None,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Returns the output (sequences, count, heads, head_dim) and lse (sequences, heads, count) float32.

    Args:
        query: (sequences, count, heads, head_dim).
        key, value: (batch, positions, heads, head_dim); packed, they are a batch of 1.
        layout: the tensors of a `BatchLayout` without globals, or nothing.
        max_seqlen: as in the layout.
        seed: (1,) int64 on the device of the query, or None without dropout.
    """
    with torch.cuda.device_of(query):
        return _call(query, key, value, layout, max_seqlen, seed, scale, dropout).forward()


@library.custom_op("longformer::fused_global_attention_backward", mutates_args=())
def fused_global_attention_backward_op(
    d_out: Tensor,
    output: Tensor,
    lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Sequence[Tensor],
    max_seqlen: int,
    seed: Tensor | None,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of query, key and value."""
    with torch.cuda.device_of(query):
        call = _call(query, key, value, layout, max_seqlen, seed, scale, dropout)
        return call.backward(output, lse, readable(d_out))


@fused_global_attention_op.register_fake
def _forward_shapes(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    sequences, count, heads, _width = query.shape
    return query.new_empty(query.shape), query.new_empty(sequences, heads, count, dtype=torch.float32)


@fused_global_attention_backward_op.register_fake
def _backward_shapes(
    d_out: Tensor, output: Tensor, lse: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, layout, max_seqlen, seed, *options = inputs
    ctx.max_seqlen, ctx.options = max_seqlen, options
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, query, key, value, seed, *layout)


def _backward(ctx: Any, d_out: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    output, lse, query, key, value, seed, *layout = ctx.saved_tensors
    gradients = fused_global_attention_backward_op(
        d_out, output, lse, query, key, value, layout, ctx.max_seqlen, seed, *ctx.options
    )
    return *gradients, [None] * len(layout), None, None, *(None for _ in ctx.options)


fused_global_attention_op.register_autograd(_backward, setup_context=_remember)


def _call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Sequence[Tensor],
    max_seqlen: int,
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
        layout=BatchLayout.from_tensors(layout, max_seqlen),
        dropout=dropout,
        seed=seed,
    )
    return GlobalAttentionCall(readable(query), tokens)
