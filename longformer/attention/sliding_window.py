"""Sliding-window attention: every query attends to its band and to the global keys."""

from typing import Any

from torch import Tensor

from longformer.attention.band import Band
from longformer.attention.blocked.op import blocked_attention_of_projections
from longformer.attention.fused import fused_attention_of_projections
from longformer.attention.metadata import AttentionMetadata
from longformer.attention.op import banded_attention, engine_name
from longformer.attention.projections import separate


def sliding_window_attention(
    projections: tuple[Tensor, ...], metadata: AttentionMetadata, band: Band, *, dropout: float, backend: str
) -> Tensor:
    """Attends from every position; global tokens are treated as if they were local.

    Args:
        projections: query, key and value, apart or packed; see `separate`.
        metadata: padding and global tokens of the batch.
        band: what a token sees around itself.
        dropout: probability of dropping an attention probability.
        backend: engine of `banded_attention`.

    Returns:
        (batch, positions, heads, head_dim); 0 at padded positions.
    """
    query, key, value = separate(projections)
    scale = query.shape[-1] ** -0.5
    engine = engine_name(backend, query, scale, relative=False)
    pattern: dict[str, Any] = {
        "left": band.left,
        "right": band.right,
        "dilations": (band.dilation,) * query.shape[2],
        "scale": scale,
        "dropout": dropout,
    }
    if engine == "blocked":
        return blocked_attention_of_projections(
            projections, **pattern, token_mask=metadata.token_mask, global_mask=metadata.global_mask
        )
    if query.numel() and engine == "fused":
        return fused_attention_of_projections(projections, **pattern, layout=metadata.layout)
    return banded_attention(
        query,
        key,
        value,
        left=band.left,
        right=band.right,
        dilation=band.dilation,
        token_mask=metadata.token_mask,
        global_mask=metadata.global_mask,
        dropout=dropout,
        backend=backend,
    )
