"""The gradients of global keys and values, which every query sees: summed by chunks of queries, then in order.

The two steps keep a global key from becoming one long-running program, and need no atomics: the sum is always taken
in the same order, so the result is the same in every run.
"""

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    aligned,
    dot_transposed,
    keep_globals,
    load_d_out,
    load_rows,
    load_tokens,
    locate_chunk,
    sequence,
    store_tokens,
)
from longformer.attention.fused.kernels.key_gradient import Keys, KeySums, add_key_value_gradients, finish, query_groups


@triton.jit
def global_chunk_kernel(
    query,
    key,
    value,
    d_out,
    lse,
    delta,
    partial,
    problem,
    chunk,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    GLOBALS: tl.constexpr,
):
    """Sums over one chunk of queries into partial (chunks, 2, sequences, heads, max_count, WIDTH) float32."""
    # Every query sees a global key, whatever its dilation: here the whole sequence is one stride group.
    site = locate_chunk(problem, chunk)
    listed = problem.global_keys
    count = tl.load(listed.counts + site.batch)
    slots = tl.program_id(2) * GLOBALS + tl.arange(0, GLOBALS)
    real = slots < count
    if tl.program_id(2) * GLOBALS >= count:
        return
    tokens = tl.load(listed.tokens + site.batch * listed.max_count + slots, mask=real, other=0)
    tile = load_tokens(key, site, tokens, real, HEAD_DIM, WIDTH)
    keys = Keys(tile, load_tokens(value, site, tokens, real, HEAD_DIM, WIDTH))
    groups = query_groups(query, d_out, lse, delta, problem, site)
    sums = KeySums(tl.zeros([GLOBALS, WIDTH], tl.float32), tl.zeros([GLOBALS, WIDTH], tl.float32))
    for start in tl.range(aligned(site.first), site.end, QUERIES):
        query_tile = load_rows(groups.query, start, site.first, site.end, QUERIES, HEAD_DIM, WIDTH)
        d_out_tile = load_d_out(groups.d_out, problem, site, start, site.first, site.end, QUERIES, HEAD_DIM, WIDTH)
        scores = dot_transposed(tile, query_tile)
        queries = (start + tl.arange(0, QUERIES))[None, :]
        if CAUSAL:
            scores = tl.where(tokens[:, None] <= queries, scores, float("-inf"))
        kept = None
        if problem.dropout is not None:
            kept = keep_globals(problem, site, queries, slots[:, None])
        sums = add_key_value_gradients(
            sums, keys, query_tile, d_out_tile, scores, kept, groups, start, site.end, problem, QUERIES
        )

    key_sum, value_sum = finish(sums, problem)
    pointers, stride = _partial_pointers(partial, tl.program_id(0), slots, listed, WIDTH)
    tl.store(pointers, key_sum, mask=real[:, None])
    tl.store(pointers + stride, value_sum, mask=real[:, None])


@triton.jit
def global_sum_kernel(
    partial,
    d_key,
    d_value,
    problem,
    chunks,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    GLOBALS: tl.constexpr,
):
    """Adds the chunks in order and writes the rows of the global keys."""
    batch = tl.program_id(1) // problem.heads
    head = tl.program_id(1) % problem.heads
    listed = problem.global_keys
    slots = tl.program_id(0) * GLOBALS + tl.arange(0, GLOBALS)
    real = slots < tl.load(listed.counts + batch)
    key_sum = tl.zeros([GLOBALS, WIDTH], tl.float32)
    value_sum = tl.zeros([GLOBALS, WIDTH], tl.float32)
    for chunk in tl.range(0, chunks):
        pointers, stride = _partial_pointers(partial, chunk, slots, listed, WIDTH)
        key_sum += tl.load(pointers, mask=real[:, None], other=0.0)
        value_sum += tl.load(pointers + stride, mask=real[:, None], other=0.0)
    origin, _, _ = sequence(problem, batch)
    tokens = origin + tl.load(listed.tokens + batch * listed.max_count + slots, mask=real, other=0)
    store_tokens(d_key, batch, head, tokens, key_sum, real, HEAD_DIM, WIDTH)
    store_tokens(d_value, batch, head, tokens, value_sum, real, HEAD_DIM, WIDTH)


@triton.jit
def _partial_pointers(partial, chunk, slots, listed, WIDTH: tl.constexpr):
    """Returns pointers to a chunk's key sums, and how far from them its value sums stand."""
    stride = tl.cast(tl.num_programs(1), tl.int64) * listed.max_count * WIDTH
    rows = (tl.program_id(1) * listed.max_count + slots).to(tl.int64)[:, None] * WIDTH
    return partial + tl.cast(chunk, tl.int64) * 2 * stride + rows + tl.arange(0, WIDTH)[None, :], stride
