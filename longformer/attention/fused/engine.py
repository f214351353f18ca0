"""The fused engine behind `banded_attention`: prepares the arguments of the operators. Imports Triton."""

import torch
import triton
from torch import Tensor

from longformer.attention.fused import DTYPES, largest_head_dim
from longformer.attention.fused.layout import BatchLayout
from longformer.attention.fused.op import fused_attention_op

# Fixed when the kernels are first imported.
INTERPRETED = triton.knobs.runtime.interpret


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    left: int,
    right: int,
    dilations: tuple[int, ...],
    causal: bool,
    token_mask: Tensor | None,
    global_mask: Tensor | None,
    relative_query: Tensor | None,
    relative_key: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attend with the Triton kernels; arguments as in `banded_attention`, checked there.

    Linear memory in the positions, for the relative term too. Deterministic: the same input gives the same bits.

    Raises:
        ValueError: the tensors are not on a CUDA device (or under Triton's interpreter), are float64, have a head_dim
            above 128 (64 in float32 with the relative term), or the scale is not positive.
    """
    if query.numel() == 0:
        return query + key + value
    relative = () if relative_query is None or relative_key is None else (relative_query, relative_key)
    return _attend(
        (query, key, value),
        relative,
        BatchLayout.of(token_mask, global_mask),
        left,
        right,
        dilations,
        causal,
        scale,
        dropout,
    )


def fused_attention_packed(
    projection: Tensor,
    *,
    left: int,
    right: int,
    dilations: tuple[int, ...],
    causal: bool,
    scale: float,
    dropout: float,
    layout: BatchLayout | None,
) -> Tensor:
    """Attend with one packed projection (batch, positions, 3, heads, head_dim), read and differentiated in place.

    The gradient is written into a packed tensor too, which saves a pass over it. `layout` is built once per batch
    and serves every layer. Returns (batch, positions, heads, head_dim).

    Raises:
        ValueError: the tensors are not on a CUDA device (or under Triton's interpreter), are float64, have a head_dim
            above 128 (64 in float32 with the relative term), or the scale is not positive.
    """
    return _attend((projection,), (), layout, left, right, dilations, causal, scale, dropout)


def _attend(
    projections: tuple[Tensor, ...],
    relative: tuple[Tensor, ...],
    layout: BatchLayout | None,
    left: int,
    right: int,
    dilations: tuple[int, ...],
    causal: bool,
    scale: float,
    dropout: float,
) -> Tensor:
    _check(projections[0], scale, relative=len(relative) > 0)
    # Drawn on the device: no synchronisation, and replayed by activation checkpointing like any other random number.
    seed = torch.randint(2**62, (1,), device=projections[0].device) if dropout > 0 else None
    tensors = () if layout is None else layout.tensors()
    output, _ = fused_attention_op(projections, relative, tensors, seed, left, right, dilations, causal, scale, dropout)
    return output


def _check(query: Tensor, scale: float, *, relative: bool) -> None:
    if not query.is_cuda and not INTERPRETED:
        raise ValueError(f'query is on {query.device}: backend "fused" needs a CUDA device; use "blocked"')
    if query.dtype not in DTYPES:
        raise ValueError(f'query must be float32, bfloat16 or float16 for backend "fused", not {query.dtype}')
    largest = largest_head_dim(query.dtype, relative=relative)
    if query.shape[-1] > largest:
        raise ValueError(
            f'query has head_dim {query.shape[-1]}: backend "fused" takes at most {largest} in such a call'
        )
    if not scale > 0:
        raise ValueError(f'scale must be positive for backend "fused", not {scale}')
