"""Refusing wrong arguments of `banded_attention` by name, before anything is computed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from longformer.attention.band import Band

FLOATING_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_query_key_value(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raises ValueError unless the three tensors agree in shape, dtype and device."""
    if query.dim() != 4:
        raise ValueError(f"query must be (batch, positions, heads, head_dim), not {tuple(query.shape)}")
    if query.dtype not in FLOATING_TYPES:
        raise ValueError(f"query must be float32, float64, bfloat16 or float16, not {query.dtype}")
    check_like_query("key", key, query)
    check_like_query("value", value, query)


def check_like_query(name: str, tensor: Tensor, query: Tensor) -> None:
    """Raises ValueError unless `tensor` has the shape, dtype and device of `query`."""
    if tensor.shape != query.shape:
        raise ValueError(f"{name} must have the shape of query, {tuple(query.shape)}, not {tuple(tensor.shape)}")
    check_dtype_and_device(name, tensor, query)


def check_dtype_and_device(name: str, tensor: Tensor, query: Tensor) -> None:
    """Raises ValueError unless `tensor` has the dtype and device of `query`."""
    if tensor.dtype != query.dtype:
        raise ValueError(f"{name} must have the dtype of query, {query.dtype}, not {tensor.dtype}")
    if tensor.device != query.device:
        raise ValueError(f"{name} must be on the device of query, {query.device}, not {tensor.device}")


def check_mask(name: str, mask: Tensor | None, query: Tensor) -> None:
    """Raises ValueError unless `mask` is None or a bool tensor (batch, positions) on the query's device."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{name} must be a bool tensor, not {found}; compare with 0 to make one")
    if mask.shape != query.shape[:2]:
        raise ValueError(f"{name} must be (batch, positions), {tuple(query.shape[:2])}, not {tuple(mask.shape)}")
    if mask.device != query.device:
        raise ValueError(f"{name} must be on the device of query, {query.device}, not {mask.device}")


def check_relative(relative_query: Tensor | None, relative_key: Tensor | None, query: Tensor, band: Band) -> None:
    """Raises ValueError unless both relative tensors are absent, or both present and of the right shape."""
    if relative_query is None and relative_key is None:
        return
    if relative_query is None or relative_key is None:
        missing = "relative_query" if relative_query is None else "relative_key"
        raise ValueError(f"{missing} is missing: relative_query and relative_key are given together or not at all")
    check_like_query("relative_query", relative_query, query)
    expected = (band.keys, *query.shape[2:])
    if relative_key.shape != expected:
        raise ValueError(
            f"relative_key must be (left + right + 1, heads, head_dim), {expected}, not {tuple(relative_key.shape)}"
        )
    check_dtype_and_device("relative_key", relative_key, query)


def dilations_per_head(dilation: int | Sequence[int], *, heads: int) -> tuple[int, ...]:
    """Returns one positive dilation per head.

    Raises:
        ValueError: a dilation is not a positive integer, or their number is not that of the heads.
    """
    dilations = (dilation,) * heads if isinstance(dilation, int) else tuple(dilation)
    if len(dilations) != heads:
        raise ValueError(f"dilation must be one integer or one per head ({heads}), not {len(dilations)} of them")
    for each in dilations:
        Band(left=0, right=0, dilation=each)
    return dilations
