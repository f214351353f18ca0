"""Refusing wrong arguments of `banded_attention` by name, before anything is computed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from longformer.attention.band import Band

FLOATING_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_query_key_value(query: Tensor, key: Tensor, value: Tensor, *, packed: bool) -> None:
    """Raises ValueError unless the three tensors agree in shape, dtype and device."""
    if query.dim() != (3 if packed else 4):
        expected = "(tokens, heads, head_dim) with cu_seqlens" if packed else "(batch, positions, heads, head_dim)"
        raise ValueError(f"query must be {expected}, not {tuple(query.shape)}")
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
    """Raises ValueError unless `mask` is None or bool, (batch, positions) or (tokens,), on the query's device."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{name} must be a bool tensor, not {found}; compare with 0 to make one")
    if mask.shape != query.shape[:-2]:
        expected = "(batch, positions)" if query.dim() == 4 else "(tokens,)"
        raise ValueError(f"{name} must be {expected}, {tuple(query.shape[:-2])}, not {tuple(mask.shape)}")
    if mask.device != query.device:
        raise ValueError(f"{name} must be on the device of query, {query.device}, not {mask.device}")


def check_cu_seqlens(
    cu_seqlens: Tensor | None, max_seqlen: int | None, token_mask: Tensor | None, query: Tensor
) -> int:
    """Returns `max_seqlen`, 0 without packed sequences; their bounds are read on a CPU only.

    Raises:
        ValueError: an argument is missing or has a wrong shape or type; or the bounds are not those of sequences.
    """
    if cu_seqlens is None:
        if max_seqlen is not None:
            raise ValueError("cu_seqlens is missing: cu_seqlens and max_seqlen are given together or not at all")
        return 0
    if max_seqlen is None or max_seqlen < 1:
        raise ValueError(f"max_seqlen must be given with cu_seqlens, 1 or more, not {max_seqlen}")
    if token_mask is not None:
        raise ValueError("token_mask cannot be combined with cu_seqlens: what is packed has no padding")
    if cu_seqlens.dim() != 1 or not cu_seqlens.shape[0] or cu_seqlens.dtype not in (torch.int32, torch.int64):
        found = f"{tuple(cu_seqlens.shape)} of {cu_seqlens.dtype}"
        raise ValueError(f"cu_seqlens must be (sequences + 1,) of int32, not {found}")
    if cu_seqlens.device != query.device:
        raise ValueError(f"cu_seqlens must be on the device of query, {query.device}, not {cu_seqlens.device}")
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        tokens, lengths = query.shape[0], cu_seqlens.diff()
        behind = tokens - int(cu_seqlens[-1])
        if int(cu_seqlens[0]) or bool((lengths < 0).any()) or behind < 0:
            raise ValueError(f"cu_seqlens must rise from 0 to at most the number of tokens, {tokens}")
        longest = max(behind, *lengths.tolist(), 0)
        if longest > max_seqlen:
            raise ValueError(f"max_seqlen is {max_seqlen}, and {longest} tokens follow each other without a bound")
    return max_seqlen


def check_relative(relative_query: Tensor | None, relative_key: Tensor | None, query: Tensor, band: Band) -> None:
    """Raises ValueError unless both relative tensors are absent, or both present and of the right shape."""
    if relative_query is None and relative_key is None:
        return
    if relative_query is None or relative_key is None:
        missing = "relative_query" if relative_query is None else "relative_key"
        raise ValueError(f"{missing} is missing: relative_query and relative_key are given together or not at all")
    check_like_query("relative_query", relative_query, query)
    expected = (band.keys, *query.shape[-2:])
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
