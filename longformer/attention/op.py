"""The one attention function of the project: checks its arguments and hands them to an engine.

Every engine computes the same thing, defined by `reference.py`; they differ in speed and in where they run.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from longformer.attention.band import Band
from longformer.attention.blocked import blocked_attention
from longformer.attention.fused import fused_attention, is_fastest_for
from longformer.attention.reference import reference_attention

ENGINES = {"blocked": blocked_attention, "fused": fused_attention, "reference": reference_attention}
FLOATING_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def banded_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    left: int,
    right: int,
    dilation: int | Sequence[int] = 1,
    causal: bool = False,
    token_mask: Tensor | None = None,
    global_mask: Tensor | None = None,
    relative_query: Tensor | None = None,
    relative_key: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Let every query attend to a band of keys around itself and to the global keys, through one softmax.

    The semantics are those of Longformer's local rows (spec 1.1, 1.2), with linear memory in the positions.

    Args:
        query, key, value: (batch, positions, heads, head_dim), one floating dtype, any strides: views of a
            packed projection are read in place. Scores, softmax and sums are at least float32.
        left, right: number of keys seen before and after the query, in units of the dilation; the query's own
            position is always seen. They may be longer than the sequence.
        dilation: distance between neighbouring keys of the band, 1 = none; one for all heads or one per head.
        causal: nothing after the query is seen, global keys included; demands `right == 0`.
        token_mask: bool (batch, positions), True = a real token. A padded position is seen by nobody and its
            own row of the result is exactly 0.
        global_mask: bool (batch, positions), True = a key that every query sees, once, inside the band or not.
        relative_query: (batch, positions, heads, head_dim), the Transformer-XL position term (spec 3.2): adds
            `relative_query[b, i, h] . relative_key[m, h]` to the score of query i with the key in column m of
            its band, before scaling. Cannot be combined with `global_mask`.
        relative_key: (left + right + 1, heads, head_dim); column m is the key at i + (m - left) * dilation.
        scale: factor of the scores; default head_dim ** -0.5.
        dropout: probability of dropping an attention probability; 0 in evaluation.
        backend: "auto" (the fastest engine that is there), "blocked", "fused" (CUDA and Triton) or "reference".

    Returns:
        (batch, positions, heads, head_dim) in the dtype of `query`. A query that sees no key gives exactly 0.

    Raises:
        ValueError: an argument has a wrong shape, type, device or value; the message names it.
    """
    check_query_key_value(query, key, value)
    band = Band(left, right)
    dilations = dilations_per_head(dilation, heads=query.shape[2])
    if causal and right != 0:
        raise ValueError(f"right must be 0 when causal is True, not {right}")
    check_mask("token_mask", token_mask, query)
    check_mask("global_mask", global_mask, query)
    check_relative(relative_query, relative_key, query, band)
    if relative_query is not None and global_mask is not None:
        raise ValueError("relative_query cannot be combined with global_mask: a global key has no column in the band")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and less than 1, not {dropout}")
    if backend != "auto" and backend not in ENGINES:
        raise ValueError(f"backend must be one of auto, {', '.join(sorted(ENGINES))}, not {backend!r}")

    if backend == "auto":
        backend = "fused" if is_fastest_for(query) else "blocked"
    engine = ENGINES[backend]
    return engine(
        query,
        key,
        value,
        left=left,
        right=right,
        dilations=dilations,
        causal=causal,
        token_mask=token_mask,
        global_mask=global_mask,
        relative_query=relative_query,
        relative_key=relative_key,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        dropout=dropout,
    )


def check_query_key_value(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise ValueError unless the three tensors agree in shape, dtype and device."""
    if query.dim() != 4:
        raise ValueError(f"query must be (batch, positions, heads, head_dim), not {tuple(query.shape)}")
    if query.dtype not in FLOATING_TYPES:
        raise ValueError(f"query must be float32, float64, bfloat16 or float16, not {query.dtype}")
    check_like_query("key", key, query)
    check_like_query("value", value, query)


def check_like_query(name: str, tensor: Tensor, query: Tensor) -> None:
    """Raise ValueError unless `tensor` has the shape, dtype and device of `query`."""
    if tensor.shape != query.shape:
        raise ValueError(f"{name} must have the shape of query, {tuple(query.shape)}, not {tuple(tensor.shape)}")
    check_dtype_and_device(name, tensor, query)


def check_dtype_and_device(name: str, tensor: Tensor, query: Tensor) -> None:
    """Raise ValueError unless `tensor` has the dtype and device of `query`."""
    if tensor.dtype != query.dtype:
        raise ValueError(f"{name} must have the dtype of query, {query.dtype}, not {tensor.dtype}")
    if tensor.device != query.device:
        raise ValueError(f"{name} must be on the device of query, {query.device}, not {tensor.device}")


def check_mask(name: str, mask: Tensor | None, query: Tensor) -> None:
    """Raise ValueError unless `mask` is None or a bool tensor (batch, positions) on the query's device."""
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
    """Raise ValueError unless both relative tensors are absent, or both present and of the right shape."""
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
    """Return one positive dilation per head.

    Raises:
        ValueError: a dilation is not a positive integer, or their number is not that of the heads.
    """
    dilations = (dilation,) * heads if isinstance(dilation, int) else tuple(dilation)
    if len(dilations) != heads:
        raise ValueError(f"dilation must be one integer or one per head ({heads}), not {len(dilations)} of them")
    for each in dilations:
        if isinstance(each, bool) or not isinstance(each, int) or each < 1:
            raise ValueError(f"dilation must be a positive integer, not {each!r}")
    return dilations
