"""The forward kernel: one program computes a tile of queries of one stride group, in one softmax over all its keys."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    LOG2_E,
    PADDING,
    dot,
    load_rows,
    locate,
    per_position,
    store_rows,
    stride_group,
    token_state,
)
from longformer.attention.fused.kernels.walk import walk_keys


class Queries(NamedTuple):
    tile: Any
    relative_tile: Any
    positions: Any


class Softmax(NamedTuple):
    """An online softmax: the unnormalised output, the sum of its weights, and the highest score in base 2."""

    acc: Any
    row_sum: Any
    row_max: Any


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    output,
    lse,
    problem,
    DILATION_PER_HEAD: tl.constexpr,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    GLOBALS: tl.constexpr,
):
    """Writes the attention output and, per row, the base-2 logarithm of its softmax denominator.

    A padded row, and a row that sees no key, gets output 0 and logarithm +inf: every probability recomputed from it
    in the backward pass is then exactly 0, without a mask.
    """
    site = locate(problem, QUERIES, DILATION_PER_HEAD)
    if site.start >= site.length:
        return
    positions = site.start + tl.arange(0, QUERIES)
    tile = load_rows(stride_group(query, site), site.start, 0, site.length, QUERIES, HEAD_DIM, WIDTH)
    relative_tile = None
    if problem.relative is not None:
        group = stride_group(problem.relative.query, site)
        relative_tile = load_rows(group, site.start, 0, site.length, QUERIES, HEAD_DIM, WIDTH)

    acc = tl.zeros([QUERIES, WIDTH], tl.float32)
    # Finite, so that a row whose keys so far are all hidden (-inf) never computes inf - inf.
    row_max = tl.full([QUERIES], -1.0e30, tl.float32)
    softmax = Softmax(acc, tl.zeros([QUERIES], tl.float32), row_max)
    queries = Queries(tile, relative_tile, positions)
    softmax = walk_keys(
        accumulate, softmax, queries, key, value, problem, site, CAUSAL, HEAD_DIM, WIDTH, QUERIES, KEYS, GLOBALS
    )

    seen = softmax.row_sum > 0
    if problem.mask is not None:
        seen = seen & (token_state(problem, site, positions) != PADDING)
    # Without the 1 a row that sees nothing would divide by 0, on its way to being replaced.
    row_sum = tl.where(seen, softmax.row_sum, 1.0)
    row_lse = tl.where(seen, softmax.row_max + tl.log2(row_sum), float("inf"))
    factor = 1.0 / row_sum
    if problem.dropout is not None:
        factor = factor * problem.dropout.scale
    acc = tl.where(seen[:, None], softmax.acc * factor[:, None], 0.0)
    inside = positions < site.length
    store_rows(stride_group(output, site), site.start, acc, inside, QUERIES, HEAD_DIM, WIDTH)
    row = per_position(lse, problem, site)
    tl.store(row.data + positions * row.stride, row_lse, mask=inside)


@triton.jit
def accumulate(softmax, queries, scores, keys, values, columns, kept, problem):
    """Adds a tile of scores to the online softmax; dropout drops from the output, not from the sum."""
    scale = problem.scale * LOG2_E
    row_max = tl.maximum(softmax.row_max, tl.max(scores, 1) * scale)
    probs = tl.exp2(scores * scale - row_max[:, None])
    rescale = tl.exp2(softmax.row_max - row_max)
    row_sum = softmax.row_sum * rescale + tl.sum(probs, 1)
    if kept is not None:
        # Not the constant 0, which the compiler would select among halves, after rounding, at three times the cost.
        probs = tl.where(kept, probs, 0.0 * problem.scale)
    return Softmax(dot(probs.to(values.dtype), values, softmax.acc * rescale[:, None]), row_sum, row_max)
