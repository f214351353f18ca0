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
    Lane,
    band_span,
    in_band,
    kept_weights,
    lane_of,
    load_rows,
    locate,
    per_position,
    product,
    product_by_rows,
    store_rows,
    token_state,
)
from longformer.attention.fused.kernels.relative import load_columns, read_diagonally_by_key


class Keys(NamedTuple):
    """A tile of keys with their values and positions."""

    tile: Any
    value_tile: Any
    positions: Any


class QueryLanes(NamedTuple):
    """Where the queries and what the backward pass knows of each of them are read."""

    query: Lane
    arriving: Lane
    logarithm: Lane
    agreement: Lane


class KeySums(NamedTuple):
    """Gradients under way; `key` still lacks the scale of the scores, `value` the factor of dropout."""

    key: Any
    value: Any


@triton.jit
def key_gradient_kernel(
    query,
    key,
    value,
    output_gradient,
    log_sum,
    agreement,
    key_gradient,
    value_gradient,
    problem,
    DILATION_PER_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Write the gradients of a tile of keys and values: 0 for padding, nothing for global keys.

    Whether a key is excluded from the band concerns its own row only, so it is settled once, at the end. Padded
    queries need no mask either: their `log_sum` is +inf.
    """
    site = locate(problem, KEYS, DILATION_PER_HEAD)
    if site.start >= site.length:
        return
    places = site.start + tl.arange(0, KEYS)
    tile = load_rows(lane_of(key, site), site.start, site.length, KEYS, HEAD_DIM, WIDTH, True)
    value_tile = load_rows(lane_of(value, site), site.start, site.length, KEYS, HEAD_DIM, WIDTH, True)
    keys = Keys(tile, value_tile, site.lane + places * site.dilation)
    lanes = query_lanes(query, output_gradient, log_sum, agreement, problem, site)
    sums = KeySums(tl.zeros([KEYS, WIDTH], tl.float32), tl.zeros([KEYS, WIDTH], tl.float32))

    # A key is seen from `right` places before it to `left` places after it.
    low, inner, outer, high = band_span(site, problem.right, problem.left, KEYS, QUERIES)
    for start in tl.range(low, inner, QUERIES):
        sums = _take_band(sums, keys, places, lanes, start, problem, site, HEAD_DIM, WIDTH, QUERIES, KEYS, True)
    for start in tl.range(inner, outer, QUERIES):
        sums = _take_band(sums, keys, places, lanes, start, problem, site, HEAD_DIM, WIDTH, QUERIES, KEYS, False)
    for start in tl.range(outer, high, QUERIES):
        sums = _take_band(sums, keys, places, lanes, start, problem, site, HEAD_DIM, WIDTH, QUERIES, KEYS, True)

    key_sum, value_sum = finish(sums, problem)
    written = places < site.length
    if problem.mask is not None:
        state = token_state(problem, site, places)
        key_sum = tl.where((state == ORDINARY)[:, None], key_sum, 0.0)
        value_sum = tl.where((state == ORDINARY)[:, None], value_sum, 0.0)
        written = written & (state != GLOBAL)
    store_rows(lane_of(key_gradient, site), site.start, key_sum, written, KEYS, HEAD_DIM, WIDTH)
    store_rows(lane_of(value_gradient, site), site.start, value_sum, written, KEYS, HEAD_DIM, WIDTH)


@triton.jit
def query_lanes(query, output_gradient, log_sum, agreement, problem, site):
    logarithm = per_position(log_sum, problem, site)
    return QueryLanes(
        lane_of(query, site), lane_of(output_gradient, site), logarithm, per_position(agreement, problem, site)
    )


@triton.jit
def _take_band(
    sums, keys, places, lanes, start, problem, site,
    HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    """Add what the queries start .. start + QUERIES contribute; tiles are (key, query)."""
    query_tile = load_rows(lanes.query, start, site.end, QUERIES, HEAD_DIM, WIDTH, CHECKED)
    queries = start + tl.arange(0, QUERIES)
    scores = product_by_rows(keys.tile, query_tile)
    if problem.relative is not None:
        lane = lane_of(problem.relative.query, site)
        relative_tile = load_rows(lane, start, site.end, QUERIES, HEAD_DIM, WIDTH, CHECKED)
        first_column = site.start - start + problem.left - (KEYS - 1)
        columns = load_columns(problem, site, first_column, 2 * KEYS, HEAD_DIM, WIDTH)
        scores += read_diagonally_by_key(product_by_rows(columns, relative_tile), KEYS)
    if CHECKED:
        scores = tl.where(in_band(problem, site, queries[None, :], places[:, None]), scores, float("-inf"))
    return add_key_slopes(
        sums, keys, query_tile, scores, lanes, start, problem, site, HEAD_DIM, WIDTH, QUERIES, CHECKED
    )


@triton.jit
def add_key_slopes(
    sums, keys, query_tile, scores, lanes, start, problem, site,
    HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    """Add a (key, query) tile of scores to the sums."""
    queries = start + tl.arange(0, QUERIES)
    arriving = load_rows(lanes.arriving, start, site.end, QUERIES, HEAD_DIM, WIDTH, CHECKED)
    if CHECKED:
        there = queries < site.end
        logarithm = tl.load(lanes.logarithm.data + queries * lanes.logarithm.stride, mask=there, other=float("inf"))
        agreement = tl.load(lanes.agreement.data + queries * lanes.agreement.stride, mask=there, other=0.0)
    else:
        logarithm = tl.load(lanes.logarithm.data + queries * lanes.logarithm.stride)
        agreement = tl.load(lanes.agreement.data + queries * lanes.agreement.stride)
    weights = tl.exp2(scores * (problem.scale * LOG2_E) - logarithm[None, :])
    pull = product_by_rows(keys.value_tile, arriving)
    used = weights
    if problem.dropout is not None:
        query_positions = site.lane + queries * site.dilation
        kept = kept_weights(problem, site, query_positions[None, :], keys.positions[:, None])
        used = tl.where(kept, weights, 0.0)
        pull = tl.where(kept, pull / (1.0 - problem.dropout.rate), 0.0)
    value_sum = product(used.to(arriving.dtype), arriving, sums.value)
    slopes = (weights * (pull - agreement[None, :])).to(query_tile.dtype)
    return KeySums(product(slopes, query_tile, sums.key), value_sum)


@triton.jit
def finish(sums, problem):
    """Return the gradients of keys and values."""
    value_sum = sums.value
    if problem.dropout is not None:
        value_sum = value_sum / (1.0 - problem.dropout.rate)
    return sums.key * problem.scale, value_sum
