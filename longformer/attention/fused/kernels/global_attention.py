"""The rows of global tokens: few queries with keys of their own, of which they see every one that is not padding.

So few queries would leave a GPU idle: the forward pass and the queries' gradient split the keys into chunks, whose
results are merged outside, always in the same order. The gradients of the keys belong to a tile of keys each.
"""

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    PADDING,
    Lane,
    Site,
    lane_of,
    load_rows,
    locate,
    locate_chunk,
    product_by_rows,
    store_rows,
    token_state,
)
from longformer.attention.fused.kernels.forward import Queries, Softmax, accumulate
from longformer.attention.fused.kernels.key_gradient import Keys, KeySums, QueryLanes, add_key_slopes, finish
from longformer.attention.fused.kernels.query_gradient import Gradients, add_slopes
from longformer.attention.fused.kernels.query_gradient import Queries as KnownQueries


@triton.jit
def global_attention_kernel(
    query,
    key,
    value,
    weighted,
    total,
    highest,
    problem,
    count,
    chunk,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Write the softmax of one chunk of keys, not yet divided by its `total`.

    weighted: (chunks, batch, heads, count, WIDTH) float32; total, highest: the same without WIDTH, `highest` in base 2.
    """
    site = locate_chunk(problem, chunk)
    first = tl.program_id(2) * QUERIES
    slots = first + tl.arange(0, QUERIES)
    tile = load_rows(lane_of(query, site), first, count, QUERIES, HEAD_DIM, WIDTH, True)
    nothing = tl.full([QUERIES], -1.0e30, tl.float32)
    softmax = Softmax(tl.zeros([QUERIES, WIDTH], tl.float32), tl.zeros([QUERIES], tl.float32), nothing)
    softmax = _walk_chunk(
        accumulate, softmax, Queries(tile, None, slots), key, value, problem, site, HEAD_DIM, WIDTH, KEYS
    )
    rows = _rows_of_chunk(slots, count)
    columns = tl.arange(0, WIDTH)[None, :]
    tl.store(weighted + rows[:, None] * WIDTH + columns, softmax.weighted, mask=(slots < count)[:, None])
    tl.store(total + rows, softmax.total, mask=slots < count)
    tl.store(highest + rows, softmax.highest, mask=slots < count)


@triton.jit
def global_attention_query_gradient_kernel(
    query,
    key,
    value,
    output_gradient,
    log_sum,
    agreement,
    partial,
    problem,
    count,
    chunk,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Write what one chunk of keys contributes: partial (chunks, batch, heads, count, WIDTH) float32."""
    site = locate_chunk(problem, chunk)
    first = tl.program_id(2) * QUERIES
    slots = first + tl.arange(0, QUERIES)
    real = slots < count
    tile = load_rows(lane_of(query, site), first, count, QUERIES, HEAD_DIM, WIDTH, True)
    arriving = load_rows(lane_of(output_gradient, site), first, count, QUERIES, HEAD_DIM, WIDTH, True)
    logarithm = tl.load(log_sum + tl.program_id(1) * count + slots, mask=real, other=float("inf"))
    agreeing = tl.load(agreement + tl.program_id(1) * count + slots, mask=real, other=0.0)
    queries = KnownQueries(tile, None, slots, arriving, logarithm, agreeing)
    gradients = Gradients(tl.zeros([QUERIES, WIDTH], tl.float32), 0.0)
    gradients = _walk_chunk(add_slopes, gradients, queries, key, value, problem, site, HEAD_DIM, WIDTH, KEYS)
    pointers = partial + _rows_of_chunk(slots, count)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(pointers, gradients.query * problem.scale, mask=real[:, None])


@triton.jit
def global_attention_key_gradient_kernel(
    query,
    key,
    value,
    output_gradient,
    log_sum,
    agreement,
    key_gradient,
    value_gradient,
    problem,
    count,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Write the gradients of a tile of keys and values, 0 for padding."""
    site = locate(problem, KEYS, False)
    places = site.start + tl.arange(0, KEYS)
    tile = load_rows(lane_of(key, site), site.start, site.length, KEYS, HEAD_DIM, WIDTH, True)
    value_tile = load_rows(lane_of(value, site), site.start, site.length, KEYS, HEAD_DIM, WIDTH, True)
    keys = Keys(tile, value_tile, places)
    row = tl.program_id(1) * count
    lanes = QueryLanes(
        lane_of(query, site), lane_of(output_gradient, site), Lane(log_sum + row, 1), Lane(agreement + row, 1)
    )
    queries = Site(site.batch, site.head, 0, 1, 0, count, 0, count)
    sums = KeySums(tl.zeros([KEYS, WIDTH], tl.float32), tl.zeros([KEYS, WIDTH], tl.float32))
    # A tile of outer padding has an empty range: nobody sees it.
    for start in tl.range(0, tl.where(site.end > site.first, count, 0), QUERIES):
        query_tile = load_rows(lanes.query, start, count, QUERIES, HEAD_DIM, WIDTH, True)
        scores = product_by_rows(tile, query_tile)
        sums = add_key_slopes(
            sums, keys, query_tile, scores, lanes, start, problem, queries, HEAD_DIM, WIDTH, QUERIES, True
        )
    key_sum, value_sum = finish(sums, problem)
    if problem.mask is not None:
        seen = token_state(problem, site, places) != PADDING
        key_sum = tl.where(seen[:, None], key_sum, 0.0)
        value_sum = tl.where(seen[:, None], value_sum, 0.0)
    inside = places < site.length
    store_rows(lane_of(key_gradient, site), site.start, key_sum, inside, KEYS, HEAD_DIM, WIDTH)
    store_rows(lane_of(value_gradient, site), site.start, value_sum, inside, KEYS, HEAD_DIM, WIDTH)


@triton.jit
def _walk_chunk(
    take: tl.constexpr, state, queries, key, value, problem, site,
    HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Hand every tile of the chunk's keys to `take`, see `walk_keys`, and return the final state."""
    keys = lane_of(key, site)
    values = lane_of(value, site)
    for start in tl.range(site.first, site.end, KEYS):
        places = start + tl.arange(0, KEYS)
        key_tile = load_rows(keys, start, site.end, KEYS, HEAD_DIM, WIDTH, True)
        value_tile = load_rows(values, start, site.end, KEYS, HEAD_DIM, WIDTH, True)
        shown = places < site.end
        if problem.mask is not None:
            shown = shown & (token_state(problem, site, places) != PADDING)
        scores = tl.where(shown[None, :], product_by_rows(queries.tile, key_tile), float("-inf"))
        state = take(state, queries, scores, key_tile, value_tile, None, places, problem, site)
    return state


@triton.jit
def _rows_of_chunk(slots, count):
    """Return where a chunk's rows stand in a (chunks, batch, heads, count) tensor."""
    sequence = tl.cast(tl.program_id(0), tl.int64) * tl.num_programs(1) + tl.program_id(1)
    return sequence * count + slots
