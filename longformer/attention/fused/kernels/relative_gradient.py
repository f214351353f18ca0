"""The gradient of the relative keys: every query of every sequence adds to each band column.

Works in column space: (query, column) tiles, whose keys lie on the diagonals of a (query, key) product. Parts of the
batch are summed apart and added in a fixed order outside, without atomics.
"""

import triton
import triton.language as tl

from longformer.attention.fused.kernels.pieces import (
    LOG2_E,
    ORDINARY,
    Site,
    kept_weights,
    lane_of,
    load_rows,
    per_position,
    product,
    product_by_rows,
    token_state,
)
from longformer.attention.fused.kernels.relative import load_columns


@triton.jit
def relative_gradient_kernel(
    query,
    key,
    value,
    output_gradient,
    log_sum,
    agreement,
    partial,
    problem,
    tiles_per_part,
    DILATION_PER_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write one part's sum for one tile of columns: partial (parts, batch, heads, columns, WIDTH) float32."""
    batch = tl.program_id(1) // problem.heads
    head = tl.program_id(1) % problem.heads
    if DILATION_PER_HEAD:
        dilation = tl.load(problem.dilation + head)
    else:
        dilation = problem.dilation
    column_start = tl.program_id(0) * TILE
    band = problem.left + problem.right + 1
    rows = tl.arange(0, TILE)[:, None]
    columns = tl.arange(0, TILE)[None, :]
    gradient = tl.zeros([TILE, WIDTH], tl.float32)

    tiles = dilation * tl.cdiv(tl.cdiv(problem.positions, dilation), TILE)
    part = tl.program_id(2) * tiles_per_part
    for tile in tl.range(part, tl.minimum(part + tiles_per_part, tiles)):
        lane = tile % dilation
        start = tile // dilation * TILE
        length = tl.cdiv(problem.positions - lane, dilation)
        site = Site(batch, head, lane, dilation, start, length, 0, length)
        query_tile = load_rows(lane_of(query, site), start, length, TILE, HEAD_DIM, WIDTH, True)
        relative_tile = load_rows(lane_of(problem.relative.query, site), start, length, TILE, HEAD_DIM, WIDTH, True)
        arriving = load_rows(lane_of(output_gradient, site), start, length, TILE, HEAD_DIM, WIDTH, True)
        column_tile = load_columns(problem, site, column_start, TILE, HEAD_DIM, WIDTH)
        queries = start + tl.arange(0, TILE)
        there = queries < length
        line = per_position(log_sum, problem, site)
        logarithm = tl.load(line.data + queries * line.stride, mask=there, other=float("inf"))
        line = per_position(agreement, problem, site)
        agreeing = tl.load(line.data + queries * line.stride, mask=there, other=0.0)

        first_key = start + column_start - problem.left
        key_tile = load_rows(lane_of(key, site), first_key, length, 2 * TILE, HEAD_DIM, WIDTH, True)
        value_tile = load_rows(lane_of(value, site), first_key, length, 2 * TILE, HEAD_DIM, WIDTH, True)
        content = product_by_rows(query_tile, key_tile)
        pull = product_by_rows(arriving, value_tile)
        scores = tl.gather(content, rows + columns, 1)
        scores += product_by_rows(relative_tile, column_tile)
        pull = tl.gather(pull, rows + columns, 1)

        keys = first_key + rows + columns
        shown = (keys >= 0) & (keys < length) & (column_start + columns < band)
        if problem.mask is not None:
            shown = shown & (token_state(problem, site, keys) == ORDINARY)
        scores = tl.where(shown, scores, float("-inf"))
        weights = tl.exp2(scores * (problem.scale * LOG2_E) - logarithm[:, None])
        if problem.dropout is not None:
            positions = lane + queries * dilation
            kept = kept_weights(problem, site, positions[:, None], lane + keys * dilation)
            pull = tl.where(kept, pull / (1.0 - problem.dropout.rate), 0.0)
        slopes = weights * (pull - agreeing[:, None])
        gradient = product(tl.trans(slopes.to(query_tile.dtype)), relative_tile, gradient)

    written = column_start + tl.arange(0, TILE)
    entry = tl.cast(tl.program_id(2) * tl.num_programs(1) + tl.program_id(1), tl.int64) * band
    pointers = partial + (entry + written)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(pointers, gradient * problem.scale, mask=(written < band)[:, None])
