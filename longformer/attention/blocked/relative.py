"""The Transformer-XL position term of a part: a product with one key per column of the band, read diagonally.

Column m of a band lies one key further right in every next row, so the product of a block of queries with the
column keys becomes a block of scores by reading its memory with another row stride: no gather, no shift.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from longformer.attention.band import Block
from longformer.attention.blocked.partition import Part, Scratch


class RelativeGradients(NamedTuple):
    """Of the relative query (sequences, length, head_dim) and key (heads, columns, head_dim)."""

    query: Tensor
    key: Tensor


class RelativeTerm:
    """The term of one part's scores."""

    def __init__(
        self, part: Part, relative_query: Tensor, relative_key: Tensor, *, scale: float, scratch: Scratch
    ) -> None:
        self.scale, self.scratch = scale, scratch
        self.query = part.take(relative_query, "relative query", scratch)
        self.key = relative_key[:, part.heads].to(self.query.dtype).transpose(0, 1).contiguous()

    def zero_gradients(self) -> RelativeGradients:
        """Returns the gradients that `backward` adds to; that of the query is written block by block."""
        return RelativeGradients(
            self.scratch("relative query gradient", tuple(self.query.shape)), torch.zeros_like(self.key)
        )

    def of(self, block: Block) -> Tensor:
        """Returns the term (sequences, rows, band keys); what it holds outside the band is meaningless but finite."""
        columns, offset = self._columns(block)
        product = torch.bmm(self._rows(self.query, block), self.key[:, columns].transpose(1, 2)).mul_(self.scale)
        rows = block.stop - block.start
        width = columns.stop - columns.start
        return product.as_strided(
            (self.query.shape[0], rows, block.high - block.low), (rows * width, width - 1, 1), offset
        )

    def backward(self, block: Block, score_gradient: Tensor, gradients: RelativeGradients) -> None:
        """Adds the block's share to `gradients`; `score_gradient` is (sequences, rows, band keys), 0 off the band."""
        columns, offset = self._columns(block)
        sequences, rows, keys = score_gradient.shape
        width = columns.stop - columns.start
        # The diagonals of the first rows start before the tile and those of the last rows end behind it wherever
        # the ends of the sequence cut the band: zeros stand there.
        before, after = offset, max(0, width - offset + rows - 1 - keys)
        padded = functional.pad(score_gradient, (before, after))
        pitch = before + keys + after
        by_column = padded.as_strided((sequences, rows, width), (rows * pitch, pitch + 1, 1))
        by_column = by_column.reshape(self.key.shape[0], -1, width)
        query_rows = self._rows(self.query, block)
        by_query = torch.bmm(by_column, self.key[:, columns]).mul_(self.scale)
        gradients.query[:, block.start : block.stop] = by_query.view(sequences, rows, -1)
        gradients.key[:, columns].baddbmm_(by_column.transpose(1, 2), query_rows, alpha=self.scale)

    def _columns(self, block: Block) -> tuple[slice, int]:
        """Returns the columns that some query of the block uses, and how many of them precede key `low` in row 0."""
        rows = block.stop - block.start
        first = max(0, block.first_column - rows + 1)
        last = min(self.key.shape[1], block.first_column + block.high - block.low)
        return slice(first, last), block.first_column - first

    def _rows(self, tensor: Tensor, block: Block) -> Tensor:
        """Returns the block's rows of (heads * examples, length, head_dim) as (heads, examples * rows, head_dim)."""
        return tensor[:, block.start : block.stop].reshape(self.key.shape[0], -1, tensor.shape[-1])
