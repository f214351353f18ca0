"""Attention inside one part, a tile of scores at a time: forward, and backward that computes the tiles again.

A tile holds a block of queries against the global keys and the keys of their band, side by side under one
softmax. Nothing but query, key and value has to be kept from forward to backward.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longformer.attention.band import Block
from longformer.attention.dropout import draw_kept
from longformer.attention.key_value import KeyValue
from longformer.attention.relative import RelativeGradients, RelativeTerm
from longformer.attention.scratch import Scratch


class PartGradients(NamedTuple):
    """What backward finds for one part, laid out like the part's inputs."""

    query: Tensor
    band_keys: KeyValue
    global_keys: KeyValue | None
    relative: RelativeGradients | None


class PartAttention:
    """The attention of one part; all tensors are (sequences, length, head_dim) and contiguous.

    Args:
        query, band_keys: at the same positions.
        global_keys: the gathered global keys and values, or None.
        hidden: tells what to add to the scores of a block to hide keys, (examples or 1, rows, columns).
        relative: the position term added to the scores, or None.
        blocks: the blocks of queries, in order.
        dropout: probability of dropping a probability.
        generator: source of the dropout's draws, or None without dropout; the same state gives the same draws in
            backward.
        scratch: memory for tiles and results; a result holds until the next part is computed.
    """

    def __init__(
        self,
        query: Tensor,
        band_keys: KeyValue,
        global_keys: KeyValue | None,
        *,
        hidden: Callable[[Block], Tensor],
        relative: RelativeTerm | None,
        blocks: list[Block],
        scale: float,
        dropout: float,
        generator: torch.Generator | None,
        scratch: Scratch,
    ) -> None:
        self.query, self.band_keys, self.global_keys = query, band_keys, global_keys
        self.hidden, self.relative, self.blocks = hidden, relative, blocks
        self.scale, self.dropout, self.generator, self.scratch = scale, dropout, generator, scratch

    def forward(self) -> Tensor:
        """Return the attended values."""
        output = self.scratch("output", tuple(self.query.shape))
        for block in self.blocks:
            probabilities = self._probabilities(block)
            kept = self._kept(probabilities)
            if kept is not None:
                probabilities.mul_(kept)
            attended = self.scratch("attended", tuple(self.query[:, block.start : block.stop].shape))
            for columns, keys in side_by_side(block, self.band_keys, self.global_keys):
                accumulate(attended, probabilities[:, :, columns], keys.value, columns)
            output[:, block.start : block.stop] = attended
        return output

    def backward(self, output_gradient: Tensor) -> PartGradients:
        """Return the gradients of everything that was attended with."""
        query_gradient = self.scratch("query gradient", tuple(self.query.shape))
        band_gradient = self._zeros("band", self.band_keys)
        global_gradient = None if self.global_keys is None else self._zeros("global", self.global_keys)
        relative_gradient = None if self.relative is None else self.relative.zero_gradients()
        for block in self.blocks:
            rows = slice(block.start, block.stop)
            query, gradient = self.query[:, rows], output_gradient[:, rows]
            probabilities = self._probabilities(block)
            shape = tuple(probabilities.shape)
            kept = self._kept(probabilities)
            used = probabilities
            if kept is not None:
                used = torch.mul(probabilities, kept, out=self.scratch("used", shape))
            every_keys = side_by_side(block, self.band_keys, self.global_keys)
            every_gradient = side_by_side(block, band_gradient, global_gradient)

            probability_gradient = self.scratch("probability gradient", shape)
            for (columns, keys), (_, keys_gradient) in zip(every_keys, every_gradient, strict=True):
                keys_gradient.value.add_(self._product(used[:, :, columns].transpose(1, 2), gradient))
                probability_gradient[:, :, columns].baddbmm_(gradient, keys.value.transpose(1, 2), beta=0)
            if kept is not None:
                probability_gradient.mul_(kept)
            score_gradient = torch.ops.aten._softmax_backward_data.out(
                probability_gradient, probabilities, -1, probabilities.dtype, grad_input=self.scratch("scores", shape)
            )
            of_query = self.scratch("gradient of the block", tuple(query.shape))
            for (columns, keys), (_, keys_gradient) in zip(every_keys, every_gradient, strict=True):
                part = score_gradient[:, :, columns]
                accumulate(of_query, part, keys.key, columns, self.scale)
                keys_gradient.key.add_(self._product(part.transpose(1, 2), query, self.scale))
            query_gradient[:, rows] = of_query
            if self.relative is not None and relative_gradient is not None:
                self.relative.backward(block, score_gradient, relative_gradient)
        return PartGradients(query_gradient, band_gradient, global_gradient, relative_gradient)

    def _probabilities(self, block: Block) -> Tensor:
        """Return the tile's probabilities (sequences, rows, columns), exactly 0 where a key is hidden."""
        hidden = self.hidden(block)
        shape = (self.query.shape[0], *hidden.shape[1:])
        scores = self.scratch("scores", shape)
        by_example = scores.unflatten(0, (-1, hidden.shape[0]))
        if self.relative is None:
            by_example.copy_(hidden)
        else:
            torch.add(self.relative.of(block).unflatten(0, (-1, hidden.shape[0])), hidden, out=by_example)
        query = self.query[:, block.start : block.stop]
        for columns, keys in side_by_side(block, self.band_keys, self.global_keys):
            scores[:, :, columns].baddbmm_(query, keys.key.transpose(1, 2), alpha=self.scale)
        return torch.softmax(scores, -1, out=self.scratch("probabilities", shape))

    def _kept(self, probabilities: Tensor) -> Tensor | None:
        """Return what dropout multiplies the probabilities with, or None without dropout."""
        if self.generator is None:
            return None
        return draw_kept(self.scratch("kept", tuple(probabilities.shape)), self.dropout, self.generator)

    def _product(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        """Return `scale * left @ right`, which holds until the next product.

        Products go to contiguous memory, from which they are added where they belong: only so are those of all
        sequences one call of the matrix library.
        """
        out = self.scratch("product", (left.shape[0], left.shape[1], right.shape[2]))
        return out.baddbmm_(left, right, beta=0, alpha=scale)

    def _zeros(self, name: str, keys: KeyValue) -> KeyValue:
        return KeyValue(
            self.scratch(f"{name} key gradient", tuple(keys.key.shape)).zero_(),
            self.scratch(f"{name} value gradient", tuple(keys.value.shape)).zero_(),
        )


def side_by_side(block: Block, band: KeyValue, everywhere: KeyValue | None) -> list[tuple[slice, KeyValue]]:
    """Return the keys that a tile looks at, global ones first, each with the columns of the tile they take."""
    first = 0 if everywhere is None else everywhere.key.shape[1]
    of_band = (slice(first, first + block.high - block.low), band.between(block.low, block.high))
    return [of_band] if everywhere is None else [(slice(0, first), everywhere), of_band]


def accumulate(total: Tensor, left: Tensor, right: Tensor, columns: slice, scale: float = 1.0) -> None:
    """Add `scale * left @ right` to `total`; the first columns of a tile overwrite what was there."""
    total.baddbmm_(left, right, beta=0 if columns.start == 0 else 1, alpha=scale)
