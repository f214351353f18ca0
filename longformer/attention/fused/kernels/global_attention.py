"""Global attention: few queries, which see every key of their sequence that is not padding.

So few queries would leave a GPU idle: the forward pass and the queries' gradient split the keys into chunks, whose
results are merged outside, always in the same order. The gradients of the keys belong to a tile of keys each.
"""

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    PADDING,
    Site,
    StrideGroup,
    aligned,
    dot_transposed,
    keep_in_band,
    load_rows,
    locate,
    locate_chunk,
    score_factor,
    store_rows,
    stride_group,
    token_state,
)
from longformer.attention.fused.kernels.forward import Queries, Softmax, accumulate
from longformer.attention.fused.kernels.key_gradient import Keys, KeySums, QueryGroups, add_key_value_gradients, finish
from longformer.attention.fused.kernels.query_gradient import Gradients, add_query_gradient
from longformer.attention.fused.kernels.query_gradient import Queries as KnownQueries


@triton.jit
def global_attention_kernel(
    query,
    key,
    value,
    acc,
    row_sum,
    row_max,
    problem,
    count,
    chunk,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Writes the softmax of one chunk of keys, not yet divided by its `row_sum`.

    acc: (chunks, sequences, heads, count, WIDTH) float32; row_sum, row_max: without WIDTH, `row_max` in base 2.
    """
    site = locate_chunk(problem, chunk)
    first = tl.program_id(2) * QUERIES
    slots = first + tl.arange(0, QUERIES)
    tile = load_rows(stride_group(query, queries_of(site, count)), first, 0, count, QUERIES, HEAD_DIM, WIDTH)
    nothing = tl.full([QUERIES], -1.0e30, tl.float32)
    softmax = Softmax(tl.zeros([QUERIES, WIDTH], tl.float32), tl.zeros([QUERIES], tl.float32), nothing)
    softmax = _walk_chunk(
        accumulate, softmax, Queries(tile, None, slots), key, value, problem, site, HEAD_DIM, WIDTH, KEYS
    )
    rows = _rows_of_chunk(slots, count)
    columns = tl.arange(0, WIDTH)[None, :]
    tl.store(acc + rows[:, None] * WIDTH + columns, softmax.acc, mask=(slots < count)[:, None])
    tl.store(row_sum + rows, softmax.row_sum, mask=slots < count)
    tl.store(row_max + rows, softmax.row_max, mask=slots < count)


@triton.jit
def global_attention_query_gradient_kernel(
    query,
    key,
    value,
    d_out,
    lse,
    delta,
    partial,
    problem,
    count,
    chunk,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Writes what one chunk of keys contributes: partial (chunks, sequences, heads, count, WIDTH) float32."""
    site = locate_chunk(problem, chunk)
    first = tl.program_id(2) * QUERIES
    slots = first + tl.arange(0, QUERIES)
    real = slots < count
    place = queries_of(site, count)
    tile = load_rows(stride_group(query, place), first, 0, count, QUERIES, HEAD_DIM, WIDTH)
    d_out_tile = load_rows(stride_group(d_out, place), first, 0, count, QUERIES, HEAD_DIM, WIDTH)
    row_lse = tl.load(lse + tl.program_id(1) * count + slots, mask=real, other=float("inf"))
    row_delta = tl.load(delta + tl.program_id(1) * count + slots, mask=real, other=0.0)
    queries = KnownQueries(tile, None, slots, d_out_tile, row_lse, row_delta)
    gradients = Gradients(tl.zeros([QUERIES, WIDTH], tl.float32), 0.0)
    gradients = _walk_chunk(add_query_gradient, gradients, queries, key, value, problem, site, HEAD_DIM, WIDTH, KEYS)
    pointers = partial + _rows_of_chunk(slots, count)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(pointers, gradients.query * score_factor(problem), mask=real[:, None])


@triton.jit
def global_attention_key_gradient_kernel(
    query,
    key,
    value,
    d_out,
    lse,
    delta,
    d_key,
    d_value,
    problem,
    count,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Writes the gradients of a tile of keys and values, 0 for padding."""
    site = locate(problem, KEYS, False)
    positions = site.start + tl.arange(0, KEYS)
    tile = load_rows(stride_group(key, site), site.start, 0, site.length, KEYS, HEAD_DIM, WIDTH)
    value_tile = load_rows(stride_group(value, site), site.start, 0, site.length, KEYS, HEAD_DIM, WIDTH)
    keys = Keys(tile, value_tile)
    row = tl.program_id(1) * count
    queries = queries_of(site, count)
    groups = QueryGroups(
        stride_group(query, queries),
        stride_group(d_out, queries),
        StrideGroup(lse + row, 1),
        StrideGroup(delta + row, 1),
    )
    sums = KeySums(tl.zeros([KEYS, WIDTH], tl.float32), tl.zeros([KEYS, WIDTH], tl.float32))
    # A tile of outer padding has an empty range: no query sees it.
    for start in tl.range(0, tl.where(site.end > site.first, count, 0), QUERIES):
        query_tile = load_rows(groups.query, start, 0, count, QUERIES, HEAD_DIM, WIDTH)
        d_out_tile = load_rows(groups.d_out, start, 0, count, QUERIES, HEAD_DIM, WIDTH)
        scores = dot_transposed(tile, query_tile)
        kept = None
        if problem.dropout is not None:
            slots, own = tl.arange(0, QUERIES)[None, :], tl.arange(0, KEYS)[:, None]
            kept = keep_in_band(problem, queries, start, slots, site.start, own)
        sums = add_key_value_gradients(
            sums, keys, query_tile, d_out_tile, scores, kept, groups, start, count, problem, QUERIES
        )
    key_sum, value_sum = finish(sums, problem)
    if problem.mask is not None:
        seen = token_state(problem, site, positions) != PADDING
        key_sum = tl.where(seen[:, None], key_sum, 0.0)
        value_sum = tl.where(seen[:, None], value_sum, 0.0)
    inside = positions < site.length
    store_rows(stride_group(d_key, site), site.start, key_sum, inside, KEYS, HEAD_DIM, WIDTH)
    store_rows(stride_group(d_value, site), site.start, value_sum, inside, KEYS, HEAD_DIM, WIDTH)


@triton.jit
def queries_of(site, count):
    """Returns where the queries of the site's sequence stand in a (sequences, count, heads, head_dim) tensor."""
    return Site(site.batch, site.head, 0, 0, 0, 1, 0, count, 0, count, site.random)


@triton.jit
def _walk_chunk(
    take: tl.constexpr, state, queries, key, value, problem, site,
    HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Passes every tile of the chunk's keys to `take`, see `walk_keys`, and returns the final state."""
    keys = stride_group(key, site)
    values = stride_group(value, site)
    for start in tl.range(aligned(site.first), site.end, KEYS):
        positions = start + tl.arange(0, KEYS)
        key_tile = load_rows(keys, start, site.first, site.end, KEYS, HEAD_DIM, WIDTH)
        value_tile = load_rows(values, start, site.first, site.end, KEYS, HEAD_DIM, WIDTH)
        shown = (positions >= site.first) & (positions < site.end)
        if problem.mask is not None:
            shown = shown & (token_state(problem, site, positions) != PADDING)
        scores = tl.where(shown[None, :], dot_transposed(queries.tile, key_tile), float("-inf"))
        kept = None
        if problem.dropout is not None:
            own, other = queries.positions[:, None], tl.arange(0, KEYS)[None, :]
            kept = keep_in_band(problem, site, 0, own, start, other)
        state = take(state, queries, scores, key_tile, value_tile, None, kept, problem)
    return state


@triton.jit
def _rows_of_chunk(slots, count):
    """Returns the offsets of a chunk's rows in a (chunks, sequences, heads, count) tensor."""
    line = tl.cast(tl.program_id(0), tl.int64) * tl.num_programs(1) + tl.program_id(1)
    return line * count + slots
