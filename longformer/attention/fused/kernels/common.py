"""Pieces that every fused kernel is built from: where a program stands, how it reads rows, what it may see.

A band with dilation d over n positions is d independent bands over every d-th position ("lanes"). Kernels count
in *places*, the index within a lane; only here and in the dropout counters does a place become a position.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

PADDING = tl.constexpr(0)
ORDINARY = tl.constexpr(1)
GLOBAL = tl.constexpr(2)
LOG2_E = tl.constexpr(1.4426950408889634)


class Rows(NamedTuple):
    """A (batch, positions, heads, head_dim) tensor with any strides; head_dim is contiguous."""

    data: Any
    batch_stride: Any
    position_stride: Any
    head_stride: Any


class Mask(NamedTuple):
    """Pointers into a `BatchLayout`: what each token is, and where the real ones begin and end."""

    state: Any
    next_excluded: Any
    extent: Any


class GlobalKeys(NamedTuple):
    """Pointers to the positions (batch, most) and the number (batch,) of global tokens; comes with a mask."""

    positions: Any
    number: Any
    most: Any


class Relative(NamedTuple):
    """The two factors of the relative term; `key` has one row per band column in place of positions."""

    query: Rows
    key: Rows


class Dropout(NamedTuple):
    """`seed` points to one int64; `rate` is the chance that a weight is dropped."""

    seed: Any
    rate: Any


class Problem(NamedTuple):
    """What one attention call is about; `dilation` is an integer or a pointer to one int32 per head."""

    positions: Any
    heads: Any
    left: Any
    right: Any
    dilation: Any
    scale: Any
    mask: Mask | None
    global_keys: GlobalKeys | None
    relative: Relative | None
    dropout: Dropout | None


class Site(NamedTuple):
    """Where a program works: its lane, its tile of places, and the places of the lane that are not outer padding."""

    batch: Any
    head: Any
    lane: Any
    dilation: Any
    start: Any
    length: Any
    first: Any
    end: Any


class Lane(NamedTuple):
    """The rows of one lane of one head."""

    data: Any
    stride: Any


@triton.jit
def locate(problem, TILE: tl.constexpr, DILATION_PER_HEAD: tl.constexpr):
    """Return this program's site. Lanes of one region are neighbours in the grid, so that they share the cache."""
    batch = tl.program_id(1) // problem.heads
    head = tl.program_id(1) % problem.heads
    if DILATION_PER_HEAD:
        dilation = tl.load(problem.dilation + head)
    else:
        dilation = problem.dilation
    lane = tl.program_id(0) % dilation
    start = tl.program_id(0) // dilation * TILE
    length = tl.cdiv(problem.positions - lane, dilation)
    if problem.mask is None:
        first = 0
        end = length
    else:
        first = tl.cdiv(tl.load(problem.mask.extent + 2 * batch) - lane, dilation)
        end = tl.cdiv(tl.load(problem.mask.extent + 2 * batch + 1) - lane, dilation)
        # A tile of nothing but outer padding sees nothing and is seen by nothing: it gets an empty range.
        end = tl.where((start < end) & (start + TILE > first), end, first)
    return Site(batch, head, lane, dilation, start, length, first, end)


@triton.jit
def locate_chunk(problem, chunk):
    """Return this program's chunk of an example's tokens, seen as one lane; outer padding is left out."""
    batch = tl.program_id(1) // problem.heads
    head = tl.program_id(1) % problem.heads
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, problem.positions)
    if problem.mask is not None:
        first = tl.maximum(first, tl.load(problem.mask.extent + 2 * batch))
        end = tl.minimum(end, tl.load(problem.mask.extent + 2 * batch + 1))
    return Site(batch, head, 0, 1, first, problem.positions, first, end)


@triton.jit
def lane_of(rows, site):
    """Return the rows of the site's lane."""
    offset = tl.cast(site.batch, tl.int64) * rows.batch_stride + tl.cast(site.head, tl.int64) * rows.head_stride
    offset += tl.cast(site.lane, tl.int64) * rows.position_stride
    return Lane(rows.data + offset, tl.cast(rows.position_stride, tl.int64) * site.dilation)


@triton.jit
def per_position(data, problem, site):
    """Return the lane of a contiguous (batch, heads, positions) tensor."""
    offset = tl.cast(site.batch * problem.heads + site.head, tl.int64) * problem.positions + site.lane
    return Lane(data + offset, site.dilation)


@triton.jit
def row_pointers(lane, start, TILE: tl.constexpr, WIDTH: tl.constexpr):
    origin = lane.data + tl.cast(start, tl.int64) * lane.stride
    return origin + (tl.arange(0, TILE).to(tl.int64) * lane.stride)[:, None] + tl.arange(0, WIDTH)[None, :]


@triton.jit
def load_rows(lane, start, end, TILE: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, CHECKED: tl.constexpr):
    """Load places start .. start + TILE as a (TILE, WIDTH) tile; with CHECKED, places outside 0 .. end read as 0."""
    pointers = row_pointers(lane, start, TILE, WIDTH)
    columns = tl.arange(0, WIDTH)[None, :] < HEAD_DIM
    if CHECKED:
        places = start + tl.arange(0, TILE)[:, None]
        tile = tl.load(pointers, mask=(places >= 0) & (places < end) & columns, other=0.0)
    elif WIDTH == HEAD_DIM:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=columns, other=0.0)
    return tile


@triton.jit
def store_rows(lane, start, tile, kept, TILE: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Store the rows of a (TILE, WIDTH) tile for which `kept` holds."""
    shown = kept[:, None] & (tl.arange(0, WIDTH)[None, :] < HEAD_DIM)
    tl.store(row_pointers(lane, start, TILE, WIDTH), tile.to(lane.data.dtype.element_ty), mask=shown)


@triton.jit
def load_positions(rows, site, positions, real, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Gather the rows at `positions` of the site's head; rows that are not `real` read as 0."""
    offset = tl.cast(site.batch, tl.int64) * rows.batch_stride + tl.cast(site.head, tl.int64) * rows.head_stride
    columns = tl.arange(0, WIDTH)[None, :]
    pointers = rows.data + offset + (positions.to(tl.int64) * rows.position_stride)[:, None] + columns
    return tl.load(pointers, mask=real[:, None] & (columns < HEAD_DIM), other=0.0)


@triton.jit
def store_positions(rows, batch, head, positions, tile, real, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Scatter the rows of a (positions, WIDTH) tile that are `real`."""
    offset = tl.cast(batch, tl.int64) * rows.batch_stride + tl.cast(head, tl.int64) * rows.head_stride
    columns = tl.arange(0, WIDTH)[None, :]
    pointers = rows.data + offset + (positions.to(tl.int64) * rows.position_stride)[:, None] + columns
    tl.store(pointers, tile.to(rows.data.dtype.element_ty), mask=real[:, None] & (columns < HEAD_DIM))


@triton.jit
def token_state(problem, site, places):
    """Return the state of the tokens at `places` of the lane; outside the lane it is PADDING."""
    origin = problem.mask.state + tl.cast(site.batch, tl.int64) * problem.positions + site.lane
    return tl.load(origin + places * site.dilation, mask=(places >= 0) & (places < site.length), other=PADDING)


@triton.jit
def band_span(site, back, ahead, TILE: tl.constexpr, STEP: tl.constexpr):
    """Split the places within `back` and `ahead` of the site's tile into steps, as (low, inner, outer, high).

    Steps in inner .. outer lie inside the band of every place of the tile and need no mask. Steps are counted from
    `low`, not from a multiple of STEP: that saves up to one step at each tile.
    """
    low = tl.maximum(site.start - back, site.first)
    high = tl.minimum(site.start + TILE + ahead, site.end)
    inner = tl.minimum(low + tl.cdiv(tl.maximum(site.start + TILE - 1 - back - low, 0), STEP) * STEP, high)
    shared = tl.minimum(site.start + ahead + 1, site.end) - inner
    outer = inner + tl.maximum(shared, 0) // STEP * STEP
    return low, inner, outer, high


@triton.jit
def before_excluded(problem, site, inner, outer, STEP: tl.constexpr):
    """Return the end of the steps from `inner` that hold only ordinary tokens; at most `outer`."""
    position = tl.minimum(site.lane + inner * site.dilation, problem.positions)
    origin = problem.mask.next_excluded + tl.cast(site.batch, tl.int64) * (problem.positions + 1)
    clean = tl.cdiv(tl.load(origin + position) - site.lane, site.dilation) - inner
    return tl.minimum(outer, inner + tl.maximum(clean, 0) // STEP * STEP)


@triton.jit
def in_band(problem, site, queries, keys):
    """Say which pairs of places the band allows; the arguments broadcast."""
    return (keys - queries <= problem.right) & (queries - keys <= problem.left) & (keys >= 0) & (keys < site.end)


@triton.jit
def kept_weights(problem, site, query_positions, key_positions):
    """Draw which weights survive dropout; the arguments broadcast.

    The counter is (key, query, head, batch), so every kernel and every tile shape draws the same. Seven rounds are
    the fewest of Philox-4x32 that pass BigCrush (Salmon et al. 2011, table 2).
    """
    zero = tl.zeros_like(query_positions + key_positions)
    seed = tl.load(problem.dropout.seed)
    draw, _, _, _ = tl.philox(
        seed, key_positions + zero, query_positions + zero, site.head + zero, site.batch + zero, n_rounds=7
    )
    return tl.uint_to_uniform_float(draw) >= problem.dropout.rate


@triton.jit
def product(left, right, sum):
    """Return left @ right + sum in float32. 32-bit factors are split in three, or their product would be TF32's."""
    return tl.dot(left, right, sum, input_precision="tf32x3")


@triton.jit
def product_by_rows(left, right):
    """Return left @ right.T in float32: every row of one with every row of the other."""
    return tl.dot(left, tl.trans(right), input_precision="tf32x3")
