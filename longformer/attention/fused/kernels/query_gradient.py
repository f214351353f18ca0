"""The gradient of the queries: the forward kernel's loop over the keys again, probabilities recomputed from `lse`."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    LOG2_E,
    dot,
    dot_transposed,
    load_d_out,
    load_rows,
    locate,
    per_position,
    score_factor,
    score_gradient,
    store_rows,
    stride_group,
)
from longformer.attention.fused.kernels.relative import scatter_diagonals
from longformer.attention.fused.kernels.walk import walk_keys


class Queries(NamedTuple):
    """A tile of queries with what the backward pass knows of each: d_out, lse and delta."""

    tile: Any
    relative_tile: Any
    positions: Any
    d_out_tile: Any
    row_lse: Any
    row_delta: Any


class Gradients(NamedTuple):
    """Sums that still lack the scale of the scores; `relative` stays 0.0 without the relative term."""

    query: Any
    relative: Any


@triton.jit
def query_gradient_kernel(
    query,
    key,
    value,
    output,
    d_out,
    lse,
    delta,
    d_query,
    d_relative_query,
    problem,
    DILATION_PER_HEAD: tl.constexpr,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    GLOBALS: tl.constexpr,
):
    """Writes the gradient of a tile of queries, and stores delta = output . d_out of every row.

    With dropout delta is the part of it that is kept, so that one factor, applied last, makes up for what is dropped.

    The kernels of the key gradients read `delta`, so this one runs first.
    """
    site = locate(problem, QUERIES, DILATION_PER_HEAD)
    if site.start >= site.length:
        return
    positions = site.start + tl.arange(0, QUERIES)
    inside = positions < site.length
    tile = load_rows(stride_group(query, site), site.start, 0, site.length, QUERIES, HEAD_DIM, WIDTH)
    group = stride_group(d_out, site)
    d_out_tile = load_d_out(group, problem, site, site.start, 0, site.length, QUERIES, HEAD_DIM, WIDTH)
    output_tile = load_rows(stride_group(output, site), site.start, 0, site.length, QUERIES, HEAD_DIM, WIDTH)
    row_delta = tl.sum(output_tile.to(tl.float32) * d_out_tile.to(tl.float32), 1)
    if problem.dropout is not None:
        row_delta = row_delta / problem.dropout.scale
    row = per_position(delta, problem, site)
    tl.store(row.data + positions * row.stride, row_delta, mask=inside)
    row = per_position(lse, problem, site)
    row_lse = tl.load(row.data + positions * row.stride, mask=inside, other=float("inf"))
    relative_tile = None
    relative_sum = 0.0
    if problem.relative is not None:
        group = stride_group(problem.relative.query, site)
        relative_tile = load_rows(group, site.start, 0, site.length, QUERIES, HEAD_DIM, WIDTH)
        relative_sum = tl.zeros([QUERIES, WIDTH], tl.float32)

    gradients = Gradients(tl.zeros([QUERIES, WIDTH], tl.float32), relative_sum)
    queries = Queries(tile, relative_tile, positions, d_out_tile, row_lse, row_delta)
    gradients = walk_keys(
        add_query_gradient,
        gradients,
        queries,
        key,
        value,
        problem,
        site,
        CAUSAL,
        HEAD_DIM,
        WIDTH,
        QUERIES,
        KEYS,
        GLOBALS,
    )

    group = stride_group(d_query, site)
    store_rows(group, site.start, gradients.query * score_factor(problem), inside, QUERIES, HEAD_DIM, WIDTH)
    if problem.relative is not None:
        group = stride_group(d_relative_query, site)
        store_rows(group, site.start, gradients.relative * score_factor(problem), inside, QUERIES, HEAD_DIM, WIDTH)


@triton.jit
def add_query_gradient(gradients, queries, scores, keys, values, columns, kept, problem):
    """Adds a tile of keys to the gradients: the gradient of each score, times the key."""
    probs = tl.exp2(scores * (problem.scale * LOG2_E) - queries.row_lse[:, None])
    d_probs = dot_transposed(queries.d_out_tile, values)
    d_scores = score_gradient(probs, d_probs, queries.row_delta[:, None], kept).to(keys.dtype)
    relative = gradients.relative
    if columns is not None:
        relative = dot(scatter_diagonals(d_scores, d_scores.shape[1]).to(keys.dtype), columns, relative)
    return Gradients(dot(d_scores, keys, gradients.query), relative)
