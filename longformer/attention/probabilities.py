"""Attention probabilities of sliding-window attention, for inspection; memory only for what is returned."""

import torch
from torch import Tensor
from torch.nn import functional

from longformer.attention.band import Band
from longformer.attention.metadata import AttentionMetadata

# Queries computed at a time.
CHUNK = 128


def band_probabilities(query: Tensor, key: Tensor, band: Band, metadata: AttentionMetadata) -> Tensor:
    """Returns how every token distributes its attention over the global keys and its band, in that order.

    Args:
        query, key: (batch, positions, heads, head_dim).
        band: the band, without dilation.
        metadata: padding and global tokens of the batch; rows of global tokens and of padding are 0.

    Returns:
        (batch, heads, positions, global tokens + band.keys) in the dtype of `query`.

    Raises:
        ValueError: the band is dilated.
    """
    if band.dilation != 1:
        raise ValueError(f"attention probabilities are given for bands without dilation, not {band.dilation}")
    query = query * query.shape[-1] ** -0.5
    positions = query.shape[1]
    reachable = (
        torch.ones_like(query[:, :, 0, 0], dtype=torch.bool) if metadata.token_mask is None else metadata.token_mask
    )
    answering = reachable
    if metadata.global_mask is not None:
        # A global key is seen through its own column, and a global query has its own projections.
        reachable = answering = reachable & ~metadata.global_mask
    padding = (band.left, band.right)
    padded_key = functional.pad(key, (0, 0, 0, 0, *padding))
    hidden = ~functional.pad(reachable, padding)
    blocks = []
    for start in range(0, positions, CHUNK):
        stop = min(start + CHUNK, positions)
        columns = slice(start, stop + band.left + band.right)
        scores = torch.einsum("bihd,bjhd->bhij", query[:, start:stop], padded_key[:, columns])
        # The lowest number instead of -inf: a row that sees nothing must not become NaN, backwards either.
        scores = scores.masked_fill(hidden[:, None, None, columns], torch.finfo(scores.dtype).min)
        scores = _diagonals(scores, band.keys)
        if metadata.global_tokens is not None:
            scores = torch.cat([_global_scores(query[:, start:stop], key, metadata), scores], dim=-1)
        probabilities = scores.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32))
        silent = ~answering[:, None, start:stop, None]
        blocks.append(probabilities.masked_fill(silent, 0.0).to(query.dtype))
    return torch.cat(blocks, dim=2)


def _diagonals(scores: Tensor, keys: int) -> Tensor:
    """Reads (..., rows, rows + keys - 1) along its diagonals: row i keeps the `keys` columns from i on."""
    rows = scores.shape[-2]
    index = torch.arange(rows, device=scores.device)[:, None] + torch.arange(keys, device=scores.device)
    return scores.gather(-1, index.expand(*scores.shape[:-1], keys))


def _global_scores(query: Tensor, key: Tensor, metadata: AttentionMetadata) -> Tensor:
    """Returns the scores (batch, heads, rows, global tokens) with the global keys; free slots get the lowest number."""
    assert metadata.global_tokens is not None
    index = metadata.global_tokens.positions[:, :, None, None].expand(-1, -1, *key.shape[2:])
    scores = torch.einsum("bihd,bghd->bhig", query, key.gather(1, index))
    return scores.masked_fill(~metadata.global_tokens.is_real[:, None, None, :], torch.finfo(scores.dtype).min)
