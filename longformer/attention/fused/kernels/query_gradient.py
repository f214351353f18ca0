"""The gradient of the queries: the forward kernel's walk over the keys once more, weights recomputed from `log_sum`."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    LOG2_E,
    kept_weights,
    lane_of,
    load_rows,
    locate,
    per_position,
    product,
    product_by_rows,
    store_rows,
)
from longformer.attention.fused.kernels.relative import write_diagonally
from longformer.attention.fused.kernels.walk import walk_keys


class Queries(NamedTuple):
    """A tile of queries with what the backward pass knows of each: its output gradient, log_sum and agreement."""

    tile: Any
    relative_tile: Any
    places: Any
    arriving: Any
    logarithm: Any
    agreement: Any


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
    output_gradient,
    log_sum,
    agreement,
    query_gradient,
    relative_query_gradient,
    problem,
    DILATION_PER_HEAD: tl.constexpr,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    GLOBALS: tl.constexpr,
):
    """Write the gradient of a tile of queries, and leave `agreement` = output . output_gradient per row.

    The kernels of the key gradients read `agreement`, so this one runs first.
    """
    site = locate(problem, QUERIES, DILATION_PER_HEAD)
    if site.start >= site.length:
        return
    places = site.start + tl.arange(0, QUERIES)
    inside = places < site.length
    tile = load_rows(lane_of(query, site), site.start, site.length, QUERIES, HEAD_DIM, WIDTH, True)
    arriving = load_rows(lane_of(output_gradient, site), site.start, site.length, QUERIES, HEAD_DIM, WIDTH, True)
    output_tile = load_rows(lane_of(output, site), site.start, site.length, QUERIES, HEAD_DIM, WIDTH, True)
    agreeing = tl.sum(output_tile.to(tl.float32) * arriving.to(tl.float32), 1)
    row = per_position(agreement, problem, site)
    tl.store(row.data + places * row.stride, agreeing, mask=inside)
    row = per_position(log_sum, problem, site)
    logarithm = tl.load(row.data + places * row.stride, mask=inside, other=float("inf"))
    relative_tile = None
    relative_sum = 0.0
    if problem.relative is not None:
        lane = lane_of(problem.relative.query, site)
        relative_tile = load_rows(lane, site.start, site.length, QUERIES, HEAD_DIM, WIDTH, True)
        relative_sum = tl.zeros([QUERIES, WIDTH], tl.float32)

    gradients = Gradients(tl.zeros([QUERIES, WIDTH], tl.float32), relative_sum)
    queries = Queries(tile, relative_tile, places, arriving, logarithm, agreeing)
    gradients = walk_keys(
        add_slopes, gradients, queries, key, value, problem, site, CAUSAL, HEAD_DIM, WIDTH, QUERIES, KEYS, GLOBALS
    )

    lane = lane_of(query_gradient, site)
    store_rows(lane, site.start, gradients.query * problem.scale, inside, QUERIES, HEAD_DIM, WIDTH)
    if problem.relative is not None:
        lane = lane_of(relative_query_gradient, site)
        store_rows(lane, site.start, gradients.relative * problem.scale, inside, QUERIES, HEAD_DIM, WIDTH)


@triton.jit
def add_slopes(gradients, queries, scores, keys, values, columns, key_positions, problem, site):
    """Add what a tile of keys pulls at the queries: the loss's slope in each score, times the key."""
    weights = tl.exp2(scores * (problem.scale * LOG2_E) - queries.logarithm[:, None])
    pull = product_by_rows(queries.arriving, values)
    if problem.dropout is not None:
        query_positions = site.lane + queries.places * site.dilation
        kept = kept_weights(problem, site, query_positions[:, None], key_positions[None, :])
        pull = tl.where(kept, pull / (1.0 - problem.dropout.rate), 0.0)
    slopes = (weights * (pull - queries.agreement[:, None])).to(keys.dtype)
    relative = gradients.relative
    if columns is not None:
        relative = product(write_diagonally(slopes, slopes.shape[1]).to(keys.dtype), columns, relative)
    return Gradients(product(slopes, keys, gradients.query), relative)
