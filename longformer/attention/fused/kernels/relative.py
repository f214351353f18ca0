"""The Transformer-XL term: relative_query . relative_key[column], a banded product read along its diagonals.

A tile of TILE queries against TILE keys touches 2 TILE - 1 columns of the band. Their product with the queries is one
small matrix product; the score of (query a, key b) stands in its column b - a + TILE - 1. Nothing of the band's size
is ever kept, so memory stays linear in positions x head_dim.
"""

import triton
import triton.language as tl

from longformer.attention.fused.kernels.common import StrideGroup, load_rows


@triton.jit
def load_columns(problem, site, first, COLUMNS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Loads the relative keys of band columns first .. first + COLUMNS; those outside the band read as 0."""
    rows = problem.relative.key
    group = StrideGroup(
        rows.data + tl.cast(site.head, tl.int64) * rows.head_stride, tl.cast(rows.position_stride, tl.int64)
    )
    return load_rows(group, first, 0, problem.left + problem.right + 1, COLUMNS, HEAD_DIM, WIDTH)


@triton.jit
def gather_diagonals(products, TILE: tl.constexpr):
    """Turns products (query a, column c) of width 2 TILE into scores (query a, key b)."""
    query = tl.arange(0, TILE)[:, None]
    key = tl.arange(0, TILE)[None, :]
    return tl.gather(products, key - query + (TILE - 1), 1)


@triton.jit
def gather_diagonals_transposed(products, TILE: tl.constexpr):
    """Turns products (column c, query a) of height 2 TILE into scores (key b, query a)."""
    query = tl.arange(0, TILE)[None, :]
    key = tl.arange(0, TILE)[:, None]
    return tl.gather(products, key - query + (TILE - 1), 0)


@triton.jit
def scatter_diagonals(scores, TILE: tl.constexpr):
    """The transpose of `gather_diagonals`: scores (query a, key b) back to (query a, column c) of width 2 TILE."""
    query = tl.arange(0, TILE)[:, None]
    key = tl.arange(0, 2 * TILE)[None, :] + query - (TILE - 1)
    inside = (key >= 0) & (key < TILE)
    return tl.where(inside, tl.gather(scores, tl.where(inside, key, 0), 1), 0.0)
