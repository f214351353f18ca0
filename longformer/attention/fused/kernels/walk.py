"""The loop of a tile of queries over all its keys, the same in the forward pass and in the gradient of the queries."""

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    ORDINARY,
    band_span,
    before_excluded,
    dot_transposed,
    in_band,
    load_rows,
    load_tokens,
    stride_group,
    token_state,
)
from longformer.attention.fused.kernels.relative import gather_diagonals, load_columns


@triton.jit
def walk_keys(
    take: tl.constexpr,
    state,
    queries,
    key,
    value,
    problem,
    site,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    GLOBALS: tl.constexpr,
):
    """Passes every tile of keys to `take` and returns the final state.

    `queries` has a `tile`, its `positions` and, with the relative term, a `relative_tile`. `take(state, queries,
    scores, keys, values, columns, key_tokens, problem, site)` returns the next state; hidden keys have the score -inf.

    First the global keys, then the band in three loops without branches: the left edge, the middle that every query
    of the tile sees whole, and the rest.
    """
    if problem.global_keys is not None:
        count = tl.where(site.end > site.first, tl.load(problem.global_keys.counts + site.batch), 0)
        for slot in tl.range(0, count, GLOBALS):
            state = _take_globals(
                take, state, queries, key, value, slot, count, problem, site, CAUSAL, HEAD_DIM, WIDTH, GLOBALS
            )

    keys = stride_group(key, site)
    values = stride_group(value, site)
    low, inner, outer, high = band_span(site, problem.left, problem.right, QUERIES, KEYS)
    if problem.mask is not None:
        outer = before_excluded(problem, site, inner, outer, KEYS)
    for start in tl.range(low, inner, KEYS):
        state = _take_band(take, state, queries, keys, values, start, problem, site, HEAD_DIM, WIDTH, KEYS, True)
    for start in tl.range(inner, outer, KEYS):
        state = _take_band(take, state, queries, keys, values, start, problem, site, HEAD_DIM, WIDTH, KEYS, False)
    for start in tl.range(outer, high, KEYS):
        state = _take_band(take, state, queries, keys, values, start, problem, site, HEAD_DIM, WIDTH, KEYS, True)
    return state


@triton.jit
def _take_globals(
    take: tl.constexpr, state, queries, key, value, slot, count, problem, site,
    CAUSAL: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, GLOBALS: tl.constexpr,
):  # fmt: skip
    slots = slot + tl.arange(0, GLOBALS)
    real = slots < count
    origin = problem.global_keys.tokens + site.batch * problem.global_keys.max_count
    tokens = tl.load(origin + slots, mask=real, other=0)
    key_tile = load_tokens(key, site, tokens, real, HEAD_DIM, WIDTH)
    value_tile = load_tokens(value, site, tokens, real, HEAD_DIM, WIDTH)
    shown = real[None, :]
    if CAUSAL:
        shown = shown & (tokens[None, :] <= (site.group + queries.positions * site.dilation)[:, None])
    scores = tl.where(shown, dot_transposed(queries.tile, key_tile), float("-inf"))
    return take(state, queries, scores, key_tile, value_tile, None, tokens, problem, site)


@triton.jit
def _take_band(
    take: tl.constexpr, state, queries, keys, values, start, problem, site,
    HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    """CHECKED where an edge of the band, the end of the stride group or a token that is not ordinary may lie."""
    key_tile = load_rows(keys, start, site.end, KEYS, HEAD_DIM, WIDTH, CHECKED)
    value_tile = load_rows(values, start, site.end, KEYS, HEAD_DIM, WIDTH, CHECKED)
    positions = start + tl.arange(0, KEYS)
    scores = dot_transposed(queries.tile, key_tile)
    columns = None
    if problem.relative is not None:
        first_column = start - site.start + problem.left - (KEYS - 1)
        columns = load_columns(problem, site, first_column, 2 * KEYS, HEAD_DIM, WIDTH)
        scores += gather_diagonals(dot_transposed(queries.relative_tile, columns), KEYS)
    if CHECKED:
        shown = in_band(problem, site, queries.positions[:, None], positions[None, :])
        if problem.mask is not None:
            shown = shown & (token_state(problem, site, positions) == ORDINARY)[None, :]
        scores = tl.where(shown, scores, float("-inf"))
    return take(
        state, queries, scores, key_tile, value_tile, columns, site.group + positions * site.dilation, problem, site
    )
