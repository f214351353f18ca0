"""The gradients of keys and values: one program owns a tile of keys and walks over the queries that see it.

No two programs write the same row, so there are no atomics and the result is the same in every run.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    GLOBAL,
    LOG2_E,
    ORDINARY,
    StrideGroup,
    band_span,
    dot,
    dot_transposed,
    hide_outside_band,
    keep_in_band,
    load_d_out,
    load_rows,
    locate,
    per_position,
    score_factor,
    score_gradient,
    store_rows,
    stride_group,
    token_state,
)
from longformer.attention.fused.kernels.relative import gather_diagonals_transposed, load_columns


class Keys(NamedTuple):
    """A tile of keys with their values."""

    tile: Any
    value_tile: Any


class QueryGroups(NamedTuple):
    """The queries of a stride group, and what the backward pass knows of each of them."""

    query: StrideGroup
    d_out: StrideGroup
    lse: StrideGroup
    delta: StrideGroup


class KeySums(NamedTuple):
    """Sums of gradients; `key` still lacks the scale of the scores, `value` the factor of dropout."""

    key: Any
    value: Any


@triton.jit
def key_gradient_kernel(
    query,
    key,
    value,
    d_out,
    lse,
    delta,
    d_key,
    d_value,
    problem,
    DILATION_PER_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Writes the gradients of a tile of keys and values: 0 for padding, nothing for global keys.

    Whether a key is excluded from the band concerns its own row only, so it is settled once, at the end. Padded
    queries need no mask either: their `lse` is +inf.
    """
    site = locate(problem, KEYS, DILATION_PER_HEAD)
    if site.start >= site.length:
        return
    positions = site.start + tl.arange(0, KEYS)
    tile = load_rows(stride_group(key, site), site.start, 0, site.length, KEYS, HEAD_DIM, WIDTH)
    value_tile = load_rows(stride_group(value, site), site.start, 0, site.length, KEYS, HEAD_DIM, WIDTH)
    keys = Keys(tile, value_tile)
    groups = query_groups(query, d_out, lse, delta, problem, site)
    sums = KeySums(tl.zeros([KEYS, WIDTH], tl.float32), tl.zeros([KEYS, WIDTH], tl.float32))

    # A key is seen from `right` positions before it to `left` positions after it.
    low, high = band_span(site, problem.right, problem.left, KEYS)
    for start in tl.range(low, high, QUERIES):
        query_tile = load_rows(groups.query, start, site.first, site.end, QUERIES, HEAD_DIM, WIDTH)
        d_out_tile = load_d_out(groups.d_out, problem, site, start, site.first, site.end, QUERIES, HEAD_DIM, WIDTH)
        scores = dot_transposed(keys.tile, query_tile)
        if problem.relative is not None:
            group = stride_group(problem.relative.query, site)
            relative_tile = load_rows(group, start, site.first, site.end, QUERIES, HEAD_DIM, WIDTH)
            first_column = site.start - start + problem.left - (KEYS - 1)
            columns = load_columns(problem, site, first_column, 2 * KEYS, HEAD_DIM, WIDTH)
            scores += gather_diagonals_transposed(dot_transposed(columns, relative_tile), KEYS)
        scores = hide_outside_band(scores, site, start, problem.right, problem.left, KEYS, QUERIES)
        kept = None
        if problem.dropout is not None:
            queries, own = tl.arange(0, QUERIES)[None, :], tl.arange(0, KEYS)[:, None]
            kept = keep_in_band(problem, site, start, queries, site.start, own)
        sums = add_key_value_gradients(
            sums, keys, query_tile, d_out_tile, scores, kept, groups, start, site.end, problem, QUERIES
        )

    key_sum, value_sum = finish(sums, problem)
    written = positions < site.length
    if problem.mask is not None:
        state = token_state(problem, site, positions)
        key_sum = tl.where((state == ORDINARY)[:, None], key_sum, 0.0)
        value_sum = tl.where((state == ORDINARY)[:, None], value_sum, 0.0)
        written = written & (state != GLOBAL)
    store_rows(stride_group(d_key, site), site.start, key_sum, written, KEYS, HEAD_DIM, WIDTH)
    store_rows(stride_group(d_value, site), site.start, value_sum, written, KEYS, HEAD_DIM, WIDTH)


@triton.jit
def query_groups(query, d_out, lse, delta, problem, site):
    row_lse = per_position(lse, problem, site)
    return QueryGroups(
        stride_group(query, site), stride_group(d_out, site), row_lse, per_position(delta, problem, site)
    )


@triton.jit
def add_key_value_gradients(
    sums, keys, query_tile, d_out_tile, scores, kept, groups, start, end, problem, QUERIES: tl.constexpr
):
    """Adds a (key, query) tile of scores to the sums."""
    queries = start + tl.arange(0, QUERIES)
    # Beyond the end queries and gradients read as 0, so that nothing is added, whatever the logarithm.
    there = queries < end
    row_lse = tl.load(groups.lse.data + queries * groups.lse.stride, mask=there, other=0.0)
    row_delta = tl.load(groups.delta.data + queries * groups.delta.stride, mask=there, other=0.0)
    probs = tl.exp2(scores * (problem.scale * LOG2_E) - row_lse[None, :])
    d_probs = dot_transposed(keys.value_tile, d_out_tile)
    used = probs
    if kept is not None:
        used = tl.where(kept, probs, 0.0)
    value_sum = dot(used.to(d_out_tile.dtype), d_out_tile, sums.value)
    d_scores = score_gradient(probs, d_probs, row_delta[None, :], kept).to(query_tile.dtype)
    return KeySums(dot(d_scores, query_tile, sums.key), value_sum)


@triton.jit
def finish(sums, problem):
    """Returns the gradients of keys and values."""
    value_sum = sums.value
    if problem.dropout is not None:
        value_sum = value_sum * problem.dropout.scale
    return sums.key * score_factor(problem), value_sum
