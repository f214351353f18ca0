"""The rows that attend to their band and the global keys, from a layer's projections and what a batch holds."""

from typing import Any

from torch import Tensor

from longformer.attention.band import Band
from longformer.attention.blocked.op import blocked_attention_of_projections
from longformer.attention.fused import fused_attention_of_projections
from longformer.attention.op import banded_attention, engine_name
from longformer.attention.projections import separate
from longformer.attention.tokens import Tokens


def local_rows(projections: tuple[Tensor, ...], tokens: Tokens, band: Band, *, dropout: float, backend: str) -> Tensor:
    """Attend from every position; rows of global tokens come out as if they were local.

    Args:
        projections: query, key and value, apart or packed; see `separate`.
        tokens: what the positions hold.
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
            projections, **pattern, token_mask=tokens.token_mask, global_mask=tokens.global_mask
        )
    if query.numel() and engine == "fused":
        return fused_attention_of_projections(projections, **pattern, layout=tokens.layout)
    return banded_attention(
        query,
        key,
        value,
        left=band.left,
        right=band.right,
        dilation=band.dilation,
        token_mask=tokens.token_mask,
        global_mask=tokens.global_mask,
        dropout=dropout,
        backend=backend,
    )
