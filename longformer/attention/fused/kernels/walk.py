"""The loop of a tile of queries over all its keys, the same in the forward pass and in the gradient of the queries."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    ORDINARY,
    band_span,
    dot_transposed,
    hide_outside_band,
    keep_globals,
    keep_in_band,
    load_rows,
    load_tokens,
    next_excluded,
    stride_group,
    token_state,
)
from longformer.attention.fused.kernels.relative import gather_diagonals, load_columns


class GlobalKeys(NamedTuple):
    """The keys and values that one step over the global keys takes, and their tokens."""

    tokens: Any
    tile: Any
    value_tile: Any


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
    scores, keys, values, columns, kept, problem)` returns the next state; hidden keys have the score -inf, and `kept`
    says what survives dropout, if there is any.

    First the band in one loop, so that its loads run ahead of it without a break. What only some steps need, an edge of
    the band or an excluded token, stands behind a condition that is the same for all threads. Then the global keys,
    one step ahead in registers where these suffice: most often there is one step, and nobody waits for what it reads.
    """
    AHEAD: tl.constexpr = WIDTH * key.data.dtype.element_ty.primitive_bitwidth <= 1024
    if problem.global_keys is not None:
        count = tl.where(site.end > site.first, tl.load(problem.global_keys.counts + site.batch), 0)
        if AHEAD:
            global_keys = _load_globals(key, value, 0, count, problem, site, HEAD_DIM, WIDTH, GLOBALS)

    keys = stride_group(key, site)
    values = stride_group(value, site)
    low, high = band_span(site, problem.left, problem.right, QUERIES)
    excluded = high
    if problem.mask is not None:
        excluded = next_excluded(problem, site, low)
    for start in tl.range(low, high, KEYS):
        key_tile = load_rows(keys, start, site.first, site.end, KEYS, HEAD_DIM, WIDTH)
        value_tile = load_rows(values, start, site.first, site.end, KEYS, HEAD_DIM, WIDTH)
        scores = dot_transposed(queries.tile, key_tile)
        columns = None
        if problem.relative is not None:
            first_column = start - site.start + problem.left - (KEYS - 1)
            columns = load_columns(problem, site, first_column, 2 * KEYS, HEAD_DIM, WIDTH)
            scores += gather_diagonals(dot_transposed(queries.relative_tile, columns), KEYS)
        scores = hide_outside_band(scores, site, start, problem.left, problem.right, QUERIES, KEYS)
        if problem.mask is not None:
            if excluded < start + KEYS:
                ordinary = token_state(problem, site, start + tl.arange(0, KEYS)) == ORDINARY
                scores = tl.where(ordinary[None, :], scores, float("-inf"))
                excluded = next_excluded(problem, site, start + KEYS)
        kept = None
        if problem.dropout is not None:
            own, other = tl.arange(0, QUERIES)[:, None], tl.arange(0, KEYS)[None, :]
            kept = keep_in_band(problem, site, site.start, own, start, other)
        state = take(state, queries, scores, key_tile, value_tile, columns, kept, problem)
    if problem.global_keys is not None:
        for slot in tl.range(0, count, GLOBALS):
            if not AHEAD:
                global_keys = _load_globals(key, value, slot, count, problem, site, HEAD_DIM, WIDTH, GLOBALS)
            slots = slot + tl.arange(0, GLOBALS)
            shown = (slots < count)[None, :]
            query_tokens = site.group + queries.positions * site.dilation
            if CAUSAL:
                shown = shown & (global_keys.tokens[None, :] <= query_tokens[:, None])
            scores = tl.where(shown, dot_transposed(queries.tile, global_keys.tile), float("-inf"))
            kept = None
            if problem.dropout is not None:
                kept = keep_globals(problem, site, query_tokens[:, None], slots[None, :])
            state = take(state, queries, scores, global_keys.tile, global_keys.value_tile, None, kept, problem)
            if AHEAD:
                next_slot = slot + GLOBALS
                global_keys = _load_globals(key, value, next_slot, count, problem, site, HEAD_DIM, WIDTH, GLOBALS)
    return state


@triton.jit
def _load_globals(
    key, value, slot, count, problem, site, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, GLOBALS: tl.constexpr
):
    listed = problem.global_keys
    slots = slot + tl.arange(0, GLOBALS)
    tokens = tl.load(listed.tokens + site.batch * listed.max_count + slots, mask=slots < listed.max_count, other=0)
    tile = load_tokens(key, site, tokens, slots < count, HEAD_DIM, WIDTH)
    return GlobalKeys(tokens, tile, load_tokens(value, site, tokens, slots < count, HEAD_DIM, WIDTH))
