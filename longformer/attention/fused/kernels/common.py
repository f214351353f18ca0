"""What all fused kernels share: where a program works, how it reads and writes tiles, which keys are visible.

A band with dilation d over a sequence is d independent bands, one for each *stride group*: every d-th token. In kernels
a *position* is an index within a stride group and a *token* an index within the whole sequence; the token at a position
is `site.group + position * site.dilation`.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

PADDING = tl.constexpr(0)
ORDINARY = tl.constexpr(1)
GLOBAL = tl.constexpr(2)
LOG2_E = tl.constexpr(1.4426950408889634)


class StridedTensor(NamedTuple):
    """A (batch, positions, heads, head_dim) tensor with any strides; head_dim is contiguous."""

    data: Any
    batch_stride: Any
    position_stride: Any
    head_stride: Any


class Mask(NamedTuple):
    """Pointers into a `BatchLayout`: what each token is, and from each the next that is not ordinary."""

    state: Any
    next_excluded: Any


class GlobalKeys(NamedTuple):
    """Pointers to the indices (sequences, max_count) and the counts (sequences,) of global tokens; with a mask."""

    tokens: Any
    counts: Any
    max_count: Any


class Relative(NamedTuple):
    """The two factors of the relative term; `key` has one row per band column in place of positions."""

    query: StridedTensor
    key: StridedTensor


class Dropout(NamedTuple):
    """`seed` points to one int64. What is kept is multiplied by `scale`; of 65,536 draws `threshold` are dropped."""

    seed: Any
    threshold: Any
    scale: Any


class Problem(NamedTuple):
    """The arguments of one attention call; `dilation` is an integer or a pointer to one int32 per head.

    A batch is padded, all sequences `sequence_length` tokens long, or packed: `starts` points to where each sequence
    begins, and none is longer. `tokens` are those of all sequences. `extent` is as in `BatchLayout`.
    """

    sequence_length: Any
    tokens: Any
    heads: Any
    left: Any
    right: Any
    dilation: Any
    scale: Any
    starts: Any
    extent: Any
    mask: Mask | None
    global_keys: GlobalKeys | None
    relative: Relative | None
    dropout: Dropout | None


class Site(NamedTuple):
    """Where a program works: its stride group of `length` positions, and the tile that starts at `start`.

    Positions outside `first` to `end` are padding at the ends of the sequence. `random` is what dropout draws from in
    this sequence and head. Its first token stands at `origin` in the tensors' row `batch`, which is 0 in a
    padded batch, and at `token` among those of all sequences.
    """

    batch: Any
    head: Any
    origin: Any
    token: Any
    group: Any
    dilation: Any
    start: Any
    length: Any
    first: Any
    end: Any
    random: Any


class StrideGroup(NamedTuple):
    """The rows of one stride group of one head: a pointer to the first and the distance between them."""

    data: Any
    stride: Any


@triton.jit
def locate(problem, TILE: tl.constexpr, DILATION_PER_HEAD: tl.constexpr):
    """Returns this program's site. Stride groups of one region are neighbours in the grid, so they share the cache."""
    batch = tl.program_id(1) // problem.heads
    head = tl.program_id(1) % problem.heads
    if DILATION_PER_HEAD:
        dilation = tl.load(problem.dilation + head)
    else:
        dilation = problem.dilation
    group = tl.program_id(0) % dilation
    start = tl.program_id(0) // dilation * TILE
    origin, token, tokens = sequence(problem, batch)
    length = tl.cdiv(tokens - group, dilation)
    if problem.extent is None:
        first = 0
        end = length
    else:
        first = tl.cdiv(tl.load(problem.extent + 2 * batch) - group, dilation)
        end = tl.cdiv(tl.load(problem.extent + 2 * batch + 1) - group, dilation)
        # A tile of nothing but outer padding sees nothing and is seen by nothing: it gets an empty range.
        end = tl.where((start < end) & (start + TILE > first), end, first)
    random = random_key(problem, batch, head)
    return Site(batch, head, origin, token, group, dilation, start, length, first, end, random)


@triton.jit
def sequence(problem, batch):
    """Returns where a sequence begins, `origin` and `token` of a site, and how many tokens it has."""
    if problem.starts is None:
        origin = 0
        token = batch * problem.sequence_length
        tokens = problem.sequence_length
    else:
        origin = tl.load(problem.starts + batch)
        token = origin
        tokens = tl.load(problem.starts + batch + 1) - origin
    return origin, token, tokens


@triton.jit
def locate_chunk(problem, chunk):
    """Returns this program's chunk of a sequence, seen as one stride group; outer padding is left out."""
    batch = tl.program_id(1) // problem.heads
    head = tl.program_id(1) % problem.heads
    origin, token, tokens = sequence(problem, batch)
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, tokens)
    if problem.extent is not None:
        first = tl.maximum(first, tl.load(problem.extent + 2 * batch))
        end = tl.minimum(end, tl.load(problem.extent + 2 * batch + 1))
    random = random_key(problem, batch, head)
    return Site(batch, head, origin, token, 0, 1, first, tokens, first, end, random)


@triton.jit
def stride_group(rows, site):
    """Returns the rows of the site's stride group."""
    offset = tl.cast(site.batch, tl.int64) * rows.batch_stride + tl.cast(site.head, tl.int64) * rows.head_stride
    offset += tl.cast(site.origin + site.group, tl.int64) * rows.position_stride
    return StrideGroup(rows.data + offset, tl.cast(rows.position_stride, tl.int64) * site.dilation)


@triton.jit
def per_position(data, problem, site):
    """Returns the site's stride group of a contiguous (heads, tokens of all sequences) tensor."""
    offset = tl.cast(site.head, tl.int64) * problem.tokens + site.token + site.group
    return StrideGroup(data + offset, site.dilation)


@triton.jit
def row_pointers(group, start, TILE: tl.constexpr, WIDTH: tl.constexpr):
    origin = group.data + tl.cast(start, tl.int64) * group.stride
    return origin + (tl.arange(0, TILE).to(tl.int64) * group.stride)[:, None] + tl.arange(0, WIDTH)[None, :]


@triton.jit
def load_rows(group, start, first, end, TILE: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Loads positions start .. start + TILE as a (TILE, WIDTH) tile; those outside first .. end read as 0."""
    # Without a sign, what stands before the first stands far beyond the end.
    there = (start - first + tl.arange(0, TILE)).to(tl.uint32) < tl.cast(end - first, tl.uint32)
    shown = there[:, None] & (tl.arange(0, WIDTH)[None, :] < HEAD_DIM)
    return tl.load(row_pointers(group, start, TILE, WIDTH), mask=shown, other=0.0)


@triton.jit
def load_d_out(
    group, problem, site, start, first, end, TILE: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr
):
    """Loads the gradients of outputs as `load_rows`; whatever arrives at padding, even NaN, reads as 0."""
    # A packed sequence has no padding, nor has a batch without extents.
    if problem.mask is not None and problem.extent is not None and problem.starts is None:
        state = problem.mask.state + (site.token + site.group + start * site.dilation)
        there = (start - first + tl.arange(0, TILE)).to(tl.uint32) < tl.cast(end - first, tl.uint32)
        real = tl.load(state + tl.arange(0, TILE) * site.dilation, mask=there, other=PADDING) != PADDING
        shown = real[:, None] & (tl.arange(0, WIDTH)[None, :] < HEAD_DIM)
        tile = tl.load(row_pointers(group, start, TILE, WIDTH), mask=shown, other=0.0)
    else:
        tile = load_rows(group, start, first, end, TILE, HEAD_DIM, WIDTH)
    return tile


@triton.jit
def store_rows(group, start, tile, kept, TILE: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Stores the rows of a (TILE, WIDTH) tile for which `kept` holds."""
    shown = kept[:, None] & (tl.arange(0, WIDTH)[None, :] < HEAD_DIM)
    tl.store(row_pointers(group, start, TILE, WIDTH), tile.to(group.data.dtype.element_ty), mask=shown)


@triton.jit
def load_tokens(rows, site, tokens, real, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Gathers the rows of `tokens` of the site's head; rows that are not `real` read as 0."""
    offset = tl.cast(site.batch, tl.int64) * rows.batch_stride + tl.cast(site.head, tl.int64) * rows.head_stride
    columns = tl.arange(0, WIDTH)[None, :]
    pointers = rows.data + offset + ((site.origin + tokens).to(tl.int64) * rows.position_stride)[:, None] + columns
    return tl.load(pointers, mask=real[:, None] & (columns < HEAD_DIM), other=0.0)


@triton.jit
def store_tokens(rows, batch, head, tokens, tile, real, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Scatters the rows of a (tokens, WIDTH) tile that are `real`."""
    offset = tl.cast(batch, tl.int64) * rows.batch_stride + tl.cast(head, tl.int64) * rows.head_stride
    columns = tl.arange(0, WIDTH)[None, :]
    pointers = rows.data + offset + (tokens.to(tl.int64) * rows.position_stride)[:, None] + columns
    tl.store(pointers, tile.to(rows.data.dtype.element_ty), mask=real[:, None] & (columns < HEAD_DIM))


@triton.jit
def token_state(problem, site, positions):
    """Returns the state of the tokens at `positions` of the stride group; outside of it that is PADDING."""
    first = problem.mask.state + site.token + site.group
    return tl.load(first + positions * site.dilation, mask=(positions >= 0) & (positions < site.length), other=PADDING)


@triton.jit
def band_span(site, back, ahead, TILE: tl.constexpr):
    """Returns the positions low .. high within `back` and `ahead` of any position of the site's tile.

    Steps are counted from `low`, not from a multiple of their length: that saves up to one step at each tile.
    """
    return aligned(tl.maximum(site.start - back, site.first)), tl.minimum(site.start + TILE + ahead, site.end)


@triton.jit
def aligned(position):
    """Returns the multiple of 16 at or before a position: where a loop over positions begins."""
    return position // 16 * 16


@triton.jit
def hide_outside_band(scores, site, start, back, ahead, TILE: tl.constexpr, STEP: tl.constexpr):
    """Hides the scores of pairs outside the band: those of the site's tile with the positions start .. start + STEP.

    Only the first and last steps lie across an edge of the band, and only for them something is compared.
    """
    own = site.start - start + tl.arange(0, TILE)[:, None]
    other = tl.arange(0, STEP)[None, :]
    if start < site.start + TILE - 1 - back:
        scores = tl.where(other >= own - back, scores, float("-inf"))
    if start + STEP > tl.minimum(site.start + ahead + 1, site.end):
        scores = tl.where(other <= tl.minimum(own + ahead, site.end - start - 1), scores, float("-inf"))
    return scores


@triton.jit
def next_excluded(problem, site, position):
    """Returns the first position from `position` on whose token is not ordinary; beyond the end where there is none."""
    first = site.token + site.group
    token = tl.minimum(position * site.dilation, problem.tokens - first)
    return tl.cdiv(tl.load(problem.mask.next_excluded + first + token) - first, site.dilation)


@triton.jit
def random_key(problem, batch, head):
    """Returns what dropout draws from in one sequence and head; without dropout it is not used."""
    zero = tl.zeros_like(head)
    # Not None, which no function of Triton 3.6 can return within a tuple.
    key = zero
    if problem.dropout is not None:
        key, _, _, _ = tl.philox(tl.load(problem.dropout.seed), head, batch, zero, zero)
    return key


@triton.jit
def draw(key, first, second):
    """Returns two random words for two words of counter, which broadcast.

    Philox-2x32 (Salmon et al. 2011) with the fewest rounds at which it passes BigCrush.
    """
    first = first.to(tl.uint32)
    second = second.to(tl.uint32)
    for _ in tl.static_range(7):
        # As one product, which is one instruction; its halves apart would be two.
        product = first.to(tl.uint64) * 0xD256D193
        first = (product >> 32).to(tl.uint32) ^ key ^ second
        second = product.to(tl.uint32)
        key += 0x9E3779B9
    return first, second


@triton.jit
def keep_in_band(problem, site, query_start, queries, key_start, keys):
    """Draws which probabilities of the pairs (query_start + queries, key_start + keys) survive dropout.

    The arguments broadcast; the starts are multiples of 16. A function of the two positions alone, so every kernel and
    every tile shape draws the same. One draw serves four pairs, 8 positions apart, because in the tiles of a tensor
    core these belong to one thread: the compiler sees that they need the same draw, and makes it once.
    """
    key_tokens = site.group + (key_start + (keys & ~8)) * site.dilation
    query_tokens = site.group + (query_start + (queries & ~8)) * site.dilation
    first, second = draw(site.random, key_tokens, query_tokens)
    return _survives(problem, tl.where((keys & 8) == 0, first, second), (queries & 8) == 0)


@triton.jit
def keep_globals(problem, site, query_tokens, slots):
    """Draws which probabilities of global keys survive dropout, as `keep_in_band`; one draw serves four slots."""
    # The slots are counted on where the tokens end: no pair of the band has such a counter.
    first, second = draw(site.random, problem.sequence_length + (slots & ~9), query_tokens)
    return _survives(problem, tl.where((slots & 8) == 0, first, second), (slots & 1) == 0)


@triton.jit
def _survives(problem, word, in_high_half):
    return tl.where(in_high_half, word, word << 16) >= tl.cast(problem.dropout.threshold, tl.uint32) << 16


@triton.jit
def score_gradient(probs, d_probs, delta, kept):
    """Returns the gradients of scores, up to `score_factor`; `kept` is None without dropout."""
    if kept is None:
        gradient = probs * (d_probs - delta)
    else:
        gradient = tl.where(kept, probs, 0.0) * d_probs - probs * delta
    return gradient


@triton.jit
def score_factor(problem):
    """Returns what the gradients of queries and keys still lack, summed up from `score_gradient`."""
    factor = problem.scale
    if problem.dropout is not None:
        factor = factor * problem.dropout.scale
    return factor


@triton.jit
def dot(left, right, acc):
    """Returns left @ right + acc in float32. 32-bit factors are split in three, or their product would be TF32's."""
    return tl.dot(left, right, acc, input_precision="tf32x3")


@triton.jit
def dot_transposed(left, right):
    """Returns left @ right.T in float32, as `dot`."""
    return tl.dot(left, tl.trans(right), input_precision="tf32x3")
