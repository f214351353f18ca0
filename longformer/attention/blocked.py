"""The portable engine: blocks of queries against the slice of keys their band reaches, in plain PyTorch.

Linear memory in the number of positions, any length, any device.
"""

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256


def blocked_attention(
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
    """Attend block by block; arguments as in `banded_attention`, checked there."""
    positions = query.shape[1]
    precision = torch.promote_types(query.dtype, torch.float32)
    dilation = torch.tensor(dilations, device=query.device).view(-1, 1, 1)
    widest = max(dilations)
    seen = token_mask if token_mask is not None else torch.ones_like(query[:, :, 0, 0], dtype=torch.bool)
    glob = seen & global_mask if global_mask is not None else torch.zeros_like(seen)
    count = int(glob.sum(1).max()) if glob.numel() else 0
    order = torch.argsort(glob.to(torch.int8), dim=1, descending=True, stable=True)[:, :count]
    chosen = order[:, :, None, None].expand(-1, -1, *key.shape[2:])
    global_key, global_value, valid = key.gather(1, chosen), value.gather(1, chosen), glob.gather(1, order)
    pieces = []
    for start in range(0, positions, BLOCK):
        stop = min(start + BLOCK, positions)
        low, high = max(0, start - left * widest), min(positions, stop + right * widest)
        rows = torch.arange(start, stop, device=query.device)
        distance = torch.arange(low, high, device=query.device) - rows[:, None]
        steps = distance.div(dilation, rounding_mode="floor")
        visible = (steps * dilation == distance) & (steps >= -left) & (steps <= right)
        visible = visible[None] & (seen & ~glob)[:, None, None, low:high]
        extra = valid[:, None, None, :]
        if causal:
            extra = extra & (order[:, None, :] <= rows[:, None])[:, None]
        extra = extra.expand(-1, visible.shape[1], visible.shape[2], -1)
        visible = torch.cat([extra, visible.expand(extra.shape[0], -1, -1, -1)], -1) & seen[:, None, start:stop, None]
        keys = torch.cat([global_key, key[:, low:high]], 1).to(precision)
        values = torch.cat([global_value, value[:, low:high]], 1).to(precision)
        scores = torch.einsum("bihd,bjhd->bhij", query[:, start:stop].to(precision), keys)
        if relative_query is not None and relative_key is not None:
            by_column = torch.einsum(
                "bihd,mhd->bhim", relative_query[:, start:stop].to(precision), relative_key.to(precision)
            )
            column = (steps + left).clamp(0, left + right)
            scores = scores + by_column.gather(-1, column.expand_as(scores))
        scores = (scores * scale).masked_fill(~visible, torch.finfo(precision).min)
        probabilities = functional.dropout(scores.softmax(-1) * visible, dropout)
        pieces.append(torch.einsum("bhij,bjhd->bihd", probabilities, values))
    return torch.cat(pieces, 1).to(query.dtype)
