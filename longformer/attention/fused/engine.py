"""The fused engine behind `banded_attention`: prepares the arguments of the operators. Imports Triton."""

import torch
import triton
from torch import Tensor

from longformer.attention.fused.global_op import fused_global_attention_op
from longformer.attention.fused.layout import BatchLayout
from longformer.attention.fused.limits import obstacle
from longformer.attention.fused.op import fused_attention_op
from longformer.attention.metadata import AttentionMetadata, GlobalTokens, packed_layout
from longformer.attention.projections import separate

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
    cu_seqlens: Tensor | None,
    max_seqlen: int,
    relative_query: Tensor | None,
    relative_key: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attends with the Triton kernels; arguments as in `banded_attention`, checked there.

    Linear memory in the positions, for the relative term too. Deterministic: the same input gives the same bits.
    Waits for the device when there is a `global_mask`, to learn how many global keys there are; a layer avoids that
    with `fused_attention_of_projections`.

    Raises:
        ValueError: the kernels cannot take such a call, see `fused.obstacle`, or do not run on its device.
    """
    if query.numel() == 0:
        return query + key + value
    if global_mask is not None and token_mask is not None:
        global_mask = global_mask & token_mask
    global_tokens = None if global_mask is None else GlobalTokens.find(global_mask, cu_seqlens)
    if cu_seqlens is None:
        layout = AttentionMetadata(token_mask, global_tokens).layout
    else:
        layout = packed_layout(query.shape[1], cu_seqlens, max_seqlen, global_tokens)
    relative = () if relative_query is None or relative_key is None else (relative_query, relative_key)
    return _attend((query, key, value), relative, layout, left, right, dilations, causal, scale, dropout)


def fused_attention_of_projections(
    projections: tuple[Tensor, ...],
    *,
    left: int,
    right: int,
    dilations: tuple[int, ...],
    scale: float,
    dropout: float,
    layout: BatchLayout | None,
) -> Tensor:
    """Attends to a layer's projections with a layout that was built once per batch; never waits for the device.

    Args:
        projections: query, key and value, apart or packed; see `separate`. What is packed is read in place, and its
            gradient is written packed, which saves a pass over it.
        left, right, scale, dropout: as in `banded_attention`.
        dilations: one per head.
        layout: what the positions hold.

    Returns:
        (batch, positions, heads, head_dim).

    Raises:
        ValueError: the kernels cannot take such a call, see `fused.obstacle`, or do not run on its device.
    """
    return _attend(projections, (), layout, left, right, dilations, False, scale, dropout)


def fused_global_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float, layout: BatchLayout | None
) -> Tensor:
    """Attends from few queries to every token of their sequence; never waits for the device.

    Args:
        query: (sequences, count, heads, head_dim).
        key, value: (batch, positions, heads, head_dim); a packed batch is one of 1.
        scale: factor of the scores.
        dropout: probability of dropping an attention probability.
        layout: what the positions hold; only padding and other sequences are hidden.

    Returns:
        (sequences, count, heads, head_dim).

    Raises:
        ValueError: the kernels cannot take such a call, see `fused.obstacle`, or do not run on its device.
    """
    _check(query, scale, relative=False, sequences=query.shape[0])
    seed = _seed(dropout, query.device)
    tensors, max_seqlen = ((), 0) if layout is None else (layout.without_globals().tensors(), layout.max_seqlen)
    output, _ = fused_global_attention_op(query, key, value, tensors, max_seqlen, seed, scale, dropout)
    return output


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
    query = separate(projections)[0]
    _check(query, scale, relative=len(relative) > 0, sequences=None if layout is None else layout.sequences)
    tensors, max_seqlen = ((), 0) if layout is None else (layout.tensors(), layout.max_seqlen)
    seed = _seed(dropout, query.device)
    output, _ = fused_attention_op(
        projections, relative, tensors, max_seqlen, seed, left, right, dilations, causal, scale, dropout
    )
    return output


def _check(query: Tensor, scale: float, *, relative: bool, sequences: int | None) -> None:
    if not query.is_cuda and not INTERPRETED:
        raise ValueError(f'query is on {query.device}: backend "fused" needs a CUDA device; use "blocked"')
    if problem := obstacle(query, scale, relative=relative, sequences=sequences):
        raise ValueError(f'{problem}, for backend "fused"; use "blocked"')


def _seed(dropout: float, device: torch.device) -> Tensor | None:
    # Drawn on the device: no synchronisation, and replayed by activation checkpointing like any other random number.
    return torch.randint(2**62, (1,), device=device) if dropout > 0 else None
