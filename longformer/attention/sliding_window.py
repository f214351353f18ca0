"""Sliding-window attention: every query attends to its band and to the global keys."""

from typing import Any

from torch import Tensor

from longformer.attention.band import Band
from longformer.attention.blocked.op import blocked_attention_of_projections
from longformer.attention.fused import fused_attention_of_projections
from longformer.attention.metadata import AttentionMetadata
from longformer.attention.op import engine_name
from longformer.attention.projections import separate
from longformer.attention.reference import reference_attention


def sliding_window_attention(
    projections: tuple[Tensor, ...], metadata: AttentionMetadata, band: Band, *, dropout: float, backend: str
) -> Tensor:
    """Attends from every position; global tokens are treated as if they were local.

    Args:
        projections: query, key and value, apart or in one tensor; see `separate`. A packed batch is one of 1.
        metadata: padding, sequences and global tokens of the batch.
        band: what a token sees around itself.
        dropout: probability of dropping an attention probability.
        backend: engine of `banded_attention`.

    Returns:
        (batch, positions, heads, head_dim); 0 at padded positions.
    """
    query, key, value = separate(projections)
    scale = query.shape[-1] ** -0.5
    packing = metadata.packing
    sequences = None if packing is None else packing.cu_seqlens.shape[0]
    engine = engine_name(backend, query, scale, relative=False, sequences=sequences)
    pattern: dict[str, Any] = {
        "left": band.left,
        "right": band.right,
        "dilations": (band.dilation,) * query.shape[2],
        "scale": scale,
        "dropout": dropout,
    }
    if query.numel() and engine == "fused":
        return fused_attention_of_projections(projections, **pattern, layout=metadata.layout)
    visible: dict[str, Any] = {
        "token_mask": metadata.token_mask,
        "global_mask": metadata.global_mask,
        "cu_seqlens": None if packing is None else packing.cu_seqlens,
        "max_seqlen": 0 if packing is None else packing.max_seqlen,
    }
    if engine == "blocked":
        return blocked_attention_of_projections(projections, **pattern, **visible)
    return reference_attention(
        query, key, value, **pattern, **visible, causal=False, relative_query=None, relative_key=None
    )
