"""The forward kernel: one program computes one tile of queries of one lane, in a single softmax over all its keys."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    LOG2_E,
    PADDING,
    kept_weights,
    lane_of,
    load_rows,
    locate,
    per_position,
    product,
    store_rows,
    token_state,
)
from longformer.attention.fused.kernels.walk import walk_keys


class Queries(NamedTuple):
    tile: Any
    relative_tile: Any
    places: Any


class Softmax(NamedTuple):
    """A softmax under way: values weighted so far, sum of the weights, and the highest score in base 2."""

    weighted: Any
    total: Any
    highest: Any


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    output,
    log_sum,
    problem,
    DILATION_PER_HEAD: tl.constexpr,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    GLOBALS: tl.constexpr,
):
    """Write the attention output and, per row, the base-2 logarithm of its softmax denominator.

    A padded row, and a row that sees no key, gets output 0 and logarithm +inf: every weight recomputed from it in
    the backward pass is then exactly 0, without a mask.
    """
    site = locate(problem, QUERIES, DILATION_PER_HEAD)
    if site.start >= site.length:
        return
    places = site.start + tl.arange(0, QUERIES)
    tile = load_rows(lane_of(query, site), site.start, site.length, QUERIES, HEAD_DIM, WIDTH, True)
    relative_tile = None
    if problem.relative is not None:
        lane = lane_of(problem.relative.query, site)
        relative_tile = load_rows(lane, site.start, site.length, QUERIES, HEAD_DIM, WIDTH, True)

    weighted = tl.zeros([QUERIES, WIDTH], tl.float32)
    # Finite, so that a row whose keys so far are all hidden (-inf) never computes inf - inf.
    highest = tl.full([QUERIES], -1.0e30, tl.float32)
    softmax = Softmax(weighted, tl.zeros([QUERIES], tl.float32), highest)
    queries = Queries(tile, relative_tile, places)
    softmax = walk_keys(
        accumulate, softmax, queries, key, value, problem, site, CAUSAL, HEAD_DIM, WIDTH, QUERIES, KEYS, GLOBALS
    )

    seen = softmax.total > 0
    if problem.mask is not None:
        seen = seen & (token_state(problem, site, places) != PADDING)
    # Without the 1 a row that sees nothing would divide by 0, on its way to being replaced.
    total = tl.where(seen, softmax.total, 1.0)
    logarithm = tl.where(seen, softmax.highest + tl.log2(total), float("inf"))
    if problem.dropout is not None:
        total = total * (1.0 - problem.dropout.rate)
    weighted = tl.where(seen[:, None], softmax.weighted / total[:, None], 0.0)
    inside = places < site.length
    store_rows(lane_of(output, site), site.start, weighted, inside, QUERIES, HEAD_DIM, WIDTH)
    row = per_position(log_sum, problem, site)
    tl.store(row.data + places * row.stride, logarithm, mask=inside)


@triton.jit
def accumulate(softmax, queries, scores, keys, values, columns, key_positions, problem, site):
    """Take a tile of scores into the softmax; dropout touches what the values are weighted with, not the sum."""
    scale = problem.scale * LOG2_E
    highest = tl.maximum(softmax.highest, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - highest[:, None])
    decay = tl.exp2(softmax.highest - highest)
    total = softmax.total * decay + tl.sum(weights, 1)
    if problem.dropout is not None:
        query_positions = site.lane + queries.places * site.dilation
        kept = kept_weights(problem, site, query_positions[:, None], key_positions[None, :])
        weights = tl.where(kept, weights, 0.0)
    return Softmax(product(weights.to(values.dtype), values, softmax.weighted * decay[:, None]), total, highest)
