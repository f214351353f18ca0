"""Dense banded attention: slow, exact, at any precision. It defines the semantics and is the oracle of every test.

It spends positions x positions memory on purpose; nothing outside tests and benchmarks should call it.
"""

import torch
from torch import Tensor
from torch.nn import functional


def reference_attention(
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
    """Attends with a dense matrix of scores; arguments as in `banded_attention`, checked there.

    Scores, softmax and sums are computed in float32, or in float64 for float64 inputs.
    """
    positions = query.shape[1]
    dilation = torch.tensor(dilations, device=query.device).view(-1, 1, 1)
    position = torch.arange(positions, device=query.device)
    distance = position - position[:, None]
    steps = distance.div(dilation, rounding_mode="floor")
    visible = (steps * dilation == distance) & (steps >= -left) & (steps <= right)
    visible = visible[None]
    if global_mask is not None:
        reachable = global_mask[:, None, None, :]
        visible = visible | (reachable & (distance <= 0) if causal else reachable)
    if token_mask is not None:
        visible = visible & token_mask[:, None, None, :] & token_mask[:, None, :, None]
    if cu_seqlens is not None:
        # Counted from 1; what stands behind the last sequence has the number of the bounds.
        sequence = torch.searchsorted(cu_seqlens, position.to(cu_seqlens.dtype), right=True)
        visible = visible & (sequence == sequence[:, None]) & (sequence < cu_seqlens.shape[0])

    precision = torch.promote_types(query.dtype, torch.float32)
    scores = torch.einsum("bihd,bjhd->bhij", query.to(precision), key.to(precision))
    if relative_query is not None and relative_key is not None:
        by_column = torch.einsum("bihd,mhd->bhim", relative_query.to(precision), relative_key.to(precision))
        column = (steps + left).clamp(0, left + right)
        scores = scores + by_column.gather(-1, column.expand_as(scores))
    # The lowest finite number instead of -inf: a row that sees nothing must not become NaN, backwards either.
    scores = (scores * scale).masked_fill(~visible, torch.finfo(precision).min)
    probabilities = functional.dropout(scores.softmax(-1) * visible, dropout)
    return torch.einsum("bhij,bjhd->bihd", probabilities, value.to(precision)).to(query.dtype)
