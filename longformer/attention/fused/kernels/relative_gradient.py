"""The gradient of the relative keys: every query of every sequence adds to each band column.

Works in column space: (query, column) tiles, whose keys lie on the diagonals of a (query, key) product. Parts of the
sequences are summed apart and added in a fixed order outside, without atomics.
"""

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import (
    LOG2_E,
    ORDINARY,
    Site,
    dot,
    dot_transposed,
    keep_in_band,
    load_d_out,
    load_rows,
    per_position,
    random_key,
    score_factor,
    score_gradient,
    sequence,
    stride_group,
    token_state,
)
from longformer.attention.fused.kernels.relative import load_columns


@triton.jit
def relative_gradient_kernel(
    query,
    key,
    value,
    d_out,
    lse,
    delta,
    partial,
    problem,
    batches,
    tiles_per_part,
    DILATION_PER_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    """Writes one part's sum for one tile of columns: partial (parts, heads, columns, WIDTH) float32."""
    head = tl.program_id(1)
    if DILATION_PER_HEAD:
        dilation = tl.load(problem.dilation + head)
    else:
        dilation = problem.dilation
    column_start = tl.program_id(0) * TILE
    band = problem.left + problem.right + 1
    first_tile = tl.program_id(2) * tiles_per_part
    end_tile = first_tile + tiles_per_part
    gradient = tl.zeros([TILE, WIDTH], tl.float32)
    for batch in tl.range(0, batches):
        origin, token, tokens = sequence(problem, batch)
        first = 0
        end = tokens
        if problem.extent is not None:
            first = tl.load(problem.extent + 2 * batch)
            end = tl.load(problem.extent + 2 * batch + 1)
        # Tiles count region by region, the stride groups of a region side by side.
        low = tl.maximum(first_tile, first // dilation // TILE * dilation)
        high = tl.minimum(end_tile, tl.cdiv(tl.cdiv(end, dilation), TILE) * dilation)
        for tile in tl.range(low, high):
            group = tile % dilation
            length = tl.cdiv(tokens - group, dilation)
            start = tile // dilation * TILE
            random = random_key(problem, batch, head)
            site = Site(batch, head, origin, token, group, dilation, start, length, 0, length, random)
            gradient = _add_tile(
                gradient, query, key, value, d_out, lse, delta,
                problem, site, column_start, HEAD_DIM, WIDTH, TILE,
            )  # fmt: skip

    written = column_start + tl.arange(0, TILE)
    entry = tl.cast(tl.program_id(2) * tl.num_programs(1) + head, tl.int64) * band
    pointers = partial + (entry + written)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(pointers, gradient * score_factor(problem), mask=(written < band)[:, None])


@triton.jit
def _add_tile(
    gradient, query, key, value, d_out, lse, delta, problem, site, column_start,
    HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Adds what a tile of queries contributes to a tile of columns."""
    rows = tl.arange(0, TILE)[:, None]
    columns = tl.arange(0, TILE)[None, :]
    band = problem.left + problem.right + 1
    query_tile = load_rows(stride_group(query, site), site.start, 0, site.length, TILE, HEAD_DIM, WIDTH)
    relative_tile = load_rows(
        stride_group(problem.relative.query, site), site.start, 0, site.length, TILE, HEAD_DIM, WIDTH
    )
    column_tile = load_columns(problem, site, column_start, TILE, HEAD_DIM, WIDTH)
    queries = site.start + tl.arange(0, TILE)
    there = queries < site.length
    line = per_position(lse, problem, site)
    row_lse = tl.load(line.data + queries * line.stride, mask=there, other=float("inf"))
    line = per_position(delta, problem, site)
    row_delta = tl.load(line.data + queries * line.stride, mask=there, other=0.0)

    first_key = site.start + column_start - problem.left
    key_tile = load_rows(stride_group(key, site), first_key, 0, site.length, 2 * TILE, HEAD_DIM, WIDTH)
    value_tile = load_rows(stride_group(value, site), first_key, 0, site.length, 2 * TILE, HEAD_DIM, WIDTH)
    content = dot_transposed(query_tile, key_tile)
    group = stride_group(d_out, site)
    d_out_tile = load_d_out(group, problem, site, site.start, 0, site.length, TILE, HEAD_DIM, WIDTH)
    d_probs = dot_transposed(d_out_tile, value_tile)
    scores = tl.gather(content, rows + columns, 1)
    scores += dot_transposed(relative_tile, column_tile)
    d_probs = tl.gather(d_probs, rows + columns, 1)

    keys = first_key + rows + columns
    shown = (keys >= 0) & (keys < site.length) & (column_start + columns < band)
    if problem.mask is not None:
        shown = shown & (token_state(problem, site, keys) == ORDINARY)
    scores = tl.where(shown, scores, float("-inf"))
    probs = tl.exp2(scores * (problem.scale * LOG2_E) - row_lse[:, None])
    kept = None
    if problem.dropout is not None:
        kept = keep_in_band(problem, site, site.start, rows, 0, keys)
    d_scores = score_gradient(probs, d_probs, row_delta[:, None], kept)
    return dot(tl.trans(d_scores.to(query_tile.dtype)), relative_tile, gradient)
