"""The one attention function of the project: checks its arguments and hands them to an engine.

Every engine computes the same thing, defined by `reference.py`; they differ in speed and in where they run.
"""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from longformer.attention.band import Band
from longformer.attention.blocked.op import blocked_attention
from longformer.attention.checks import (
    check_cu_seqlens,
    check_mask,
    check_query_key_value,
    check_relative,
    dilations_per_head,
)
from longformer.attention.fused import fused_attention, is_fastest_for
from longformer.attention.reference import reference_attention

ENGINES = {"blocked": blocked_attention, "fused": fused_attention, "reference": reference_attention}


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
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    relative_query: Tensor | None = None,
    relative_key: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Lets every query attend to a band of keys around itself and to the global keys, through one softmax.

    The semantics are those of Longformer's sliding window (semantics.md 1.1, 1.2), with memory linear in the positions.

    Args:
        query, key, value: (batch, positions, heads, head_dim), one floating dtype, any strides: views of a
            packed projection are read in place. Scores, softmax and sums are at least float32. With `cu_seqlens`
            (tokens, heads, head_dim): sequences of any lengths one after another.
        left, right: number of keys seen before and after the query, in units of the dilation; the query's own
            position is always seen. They may be longer than the sequence.
        dilation: distance between neighbouring keys of the band, 1 = none; one for all heads or one per head.
        causal: nothing after the query is seen, global keys included; demands `right == 0`.
        token_mask: bool (batch, positions), True = a real token. A padded position is seen by nobody and its
            own row of the result is exactly 0.
        global_mask: bool (batch, positions), True = a key that every query of its sequence sees, once, inside the
            band or not; with `cu_seqlens` (tokens,).
        cu_seqlens: int32 (sequences + 1,), 0 first: where each sequence begins and the last one ends. A token sees
            its own sequence only, as if attention were called for each. At most `max_seqlen` tokens behind the last
            sequence belong to none: they give exactly 0. Cannot be combined with `token_mask`.
        max_seqlen: length of the longest sequence, at least 1, or more; given with `cu_seqlens`, which is not read on
            a GPU to learn or check it.
        relative_query: (batch, positions, heads, head_dim), the Transformer-XL position term (semantics.md 3.2): adds
            `relative_query[b, i, h] . relative_key[m, h]` to the score of query i with the key in column m of
            its band, before scaling; shaped as `query`. Cannot be combined with `global_mask`.
        relative_key: (left + right + 1, heads, head_dim); column m is the key at i + (m - left) * dilation.
        scale: factor of the scores; default head_dim ** -0.5.
        dropout: probability of dropping an attention probability; 0 in evaluation.
        backend: "auto" (the fastest engine that is there), "blocked", "fused" (CUDA and Triton) or "reference".

    Returns:
        The shape and dtype of `query`. A query that sees no key gives exactly 0.

    Raises:
        ValueError: an argument has a wrong shape, type, device or value; the message names it.
    """
    packed = cu_seqlens is not None
    check_query_key_value(query, key, value, packed=packed)
    band = Band(left, right)
    dilations = dilations_per_head(dilation, heads=query.shape[-2])
    if causal and right != 0:
        raise ValueError(f"right must be 0 when causal is True, not {right}")
    check_mask("token_mask", token_mask, query)
    check_mask("global_mask", global_mask, query)
    max_seqlen = check_cu_seqlens(cu_seqlens, max_seqlen, token_mask, query)
    check_relative(relative_query, relative_key, query, band)
    if relative_query is not None and global_mask is not None:
        raise ValueError("relative_query cannot be combined with global_mask: a global key has no column in the band")
    if scale is None:
        scale = query.shape[-1] ** -0.5
    elif not isinstance(scale, int | float) or not isfinite(scale):
        raise ValueError(f"scale must be a finite number, not {scale!r}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and less than 1, not {dropout}")
    if packed:
        # Engines take a packed batch as one row.
        query, key, value = query[None], key[None], value[None]
        relative_query = None if relative_query is None else relative_query[None]
        global_mask = None if global_mask is None else global_mask[None]
    sequences = None if cu_seqlens is None else cu_seqlens.shape[0]
    engine = ENGINES[engine_name(backend, query, scale, relative=relative_query is not None, sequences=sequences)]
    output = engine(
        query,
        key,
        value,
        left=left,
        right=right,
        dilations=dilations,
        causal=causal,
        token_mask=token_mask,
        global_mask=global_mask,
        cu_seqlens=None if cu_seqlens is None else cu_seqlens.to(torch.int32),
        max_seqlen=max_seqlen,
        relative_query=relative_query,
        relative_key=relative_key,
        scale=float(scale),
        dropout=dropout,
    )
    return output[0] if packed else output


def engine_name(backend: str, query: Tensor, scale: float, *, relative: bool, sequences: int | None = None) -> str:
    """Returns the engine that `backend` stands for in a call with such a query; see `banded_attention`.

    Args:
        backend: as in `banded_attention`.
        query: (batch, positions, heads, head_dim).
        scale: factor of the scores.
        relative: whether the relative term is asked for.
        sequences: how many there are in a packed batch; None: the batch is padded.

    Raises:
        ValueError: there is no such backend.
    """
    if backend == "auto":
        return "fused" if is_fastest_for(query, scale, relative=relative, sequences=sequences) else "blocked"
    if backend not in ENGINES:
        raise ValueError(f"backend must be one of auto, {', '.join(sorted(ENGINES))}, not {backend!r}")
    return backend
