"""The fused engine as PyTorch operators with gradients: what autograd, torch.compile and checkpointing see.

`longformer::fused_attention` takes its tensors in groups, so that one operator serves three separate projections and
one packed projection, whose gradient is then written packed as well.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, library

from longformer.attention.fused.launch import Call
from longformer.attention.fused.layout import BatchLayout
from longformer.attention.projections import separate


@library.custom_op("longformer::fused_attention", mutates_args=())
def fused_attention_op(
    projections: Sequence[Tensor],
    relative: Sequence[Tensor],
    layout: Sequence[Tensor],
    max_seqlen: int,
    seed: Tensor | None,
    left: int,
    right: int,
    dilations: Sequence[int],
    causal: bool,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Returns the output (batch, positions, heads, head_dim) and lse (heads, batch * positions) float32.

    Args:
        projections: query, key and value, or all in one (batch, positions, 3, heads, head_dim).
        relative: relative_query and relative_key, or nothing.
        layout: the tensors of a `BatchLayout` in order, without those that are None, or nothing.
        max_seqlen: as in the layout.
        seed: (1,) int64 on the device of the projections, or None without dropout.
    """
    call = _call(projections, relative, layout, max_seqlen, seed, left, right, dilations, causal, scale, dropout)
    # Triton starts its kernels on the current device.
    with torch.cuda.device_of(call.query):
        return call.forward()


@library.custom_op("longformer::fused_attention_backward", mutates_args=())
def fused_attention_backward_op(
    d_out: Tensor,
    output: Tensor,
    lse: Tensor,
    projections: Sequence[Tensor],
    relative: Sequence[Tensor],
    layout: Sequence[Tensor],
    max_seqlen: int,
    seed: Tensor | None,
    left: int,
    right: int,
    dilations: Sequence[int],
    causal: bool,
    scale: float,
    dropout: float,
) -> list[Tensor]:
    """Returns the gradients of `projections`, then those of `relative`."""
    call = _call(projections, relative, layout, max_seqlen, seed, left, right, dilations, causal, scale, dropout)
    gradients = [tensor.new_empty(tensor.shape) for tensor in projections]
    with torch.cuda.device_of(output):
        relative_gradients = call.backward(output, lse, readable(d_out), separate(gradients))
    return gradients + list(relative_gradients)


@fused_attention_op.register_fake
def _forward_shapes(projections: Sequence[Tensor], *_: Any) -> tuple[Tensor, Tensor]:
    query = separate(projections)[0]
    batch, positions, heads = query.shape[:3]
    return query.new_empty(query.shape), query.new_empty(heads, batch * positions, dtype=torch.float32)


@fused_attention_backward_op.register_fake
def _backward_shapes(
    d_out: Tensor,
    output: Tensor,
    lse: Tensor,
    projections: Sequence[Tensor],
    relative: Sequence[Tensor],
    *_: Any,
) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (*projections, *relative)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    projections, relative, layout, max_seqlen, seed, *options = inputs
    ctx.max_seqlen, ctx.options = max_seqlen, options
    ctx.groups = len(projections), len(relative), len(layout)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, seed, *projections, *relative, *layout)


def _backward(ctx: Any, d_out: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    output, lse, seed, *tensors = ctx.saved_tensors
    projections, relative, layout = _split(tensors, ctx.groups)
    gradients = fused_attention_backward_op(
        d_out, output, lse, projections, relative, layout, ctx.max_seqlen, seed, *ctx.options
    )
    of_projections, of_relative = _split(gradients, ctx.groups[:2])
    return of_projections, of_relative, [None] * len(layout), None, None, *(None for _ in ctx.options)


fused_attention_op.register_autograd(_backward, setup_context=_remember)


def _call(
    projections: Sequence[Tensor],
    relative: Sequence[Tensor],
    layout: Sequence[Tensor],
    max_seqlen: int,
    seed: Tensor | None,
    left: int,
    right: int,
    dilations: Sequence[int],
    causal: bool,
    scale: float,
    dropout: float,
) -> Call:
    query, key, value = map(readable, separate(projections))
    return Call(
        query=query,
        key=key,
        value=value,
        left=left,
        right=right,
        dilations=tuple(dilations),
        causal=causal,
        scale=scale,
        layout=BatchLayout.from_tensors(layout, max_seqlen),
        relative=(readable(relative[0]), readable(relative[1])) if relative else None,
        dropout=dropout,
        seed=seed,
    )


def _split(tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    """Cuts a sequence of tensors into consecutive groups of the given sizes."""
    rest = iter(tensors)
    return [list(islice(rest, size)) for size in sizes]


def readable(tensor: Tensor) -> Tensor:
    """Returns a tensor whose last dimension the kernels can read: contiguous there."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
