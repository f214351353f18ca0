"""Attention inside one part, a tile of scores at a time: forward, and backward that computes the tiles again.

A tile holds a block of queries against the global keys and the keys of their band, side by side under one
softmax. Nothing but query, key and value has to be kept from forward to backward. What can be computed in place is:
the fewer tiles exist at a time, the larger they may be in a processor's cache.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longformer.attention.band import Block
from longformer.attention.blocked.partition import Part, Scratch
from longformer.attention.blocked.relative import RelativeTerm
from longformer.attention.blocked.visibility import Hidden
from longformer.attention.projections import KeyValue
from longformer.cpu.dropout import draw_kept, factor_of_kept


class SharedGradients(NamedTuple):
    """Gradients that other parts add to as well; memory of their own."""

    global_keys: KeyValue | None
    relative_key: Tensor | None
    """(heads, columns, head_dim)"""


class PartGradients(NamedTuple):
    """The gradients of one part beside that of the query, laid out like the part's inputs; in scratch memory."""

    band_keys: KeyValue
    relative_query: Tensor | None
    shared: SharedGradients


class PartAttention:
    """The attention of one part.

    Args:
        part: which sequences, and where they stand in tensors (batch, positions, heads, head_dim).
        band_keys: of these sequences, (sequences, length, head_dim).
        global_keys: the gathered global keys and values, likewise, or None.
        hidden: tells what to add to the scores of a block to hide keys.
        relative: the position term added to the scores, or None.
        blocks: the blocks of queries, in order.
        dropout: probability of dropping a probability.
        generator: source of the dropout's draws, or None without dropout; the same state gives the same draws in
            backward.
        scratch: memory for tiles and results; a result holds until the thread computes its next part.
    """

    def __init__(
        self,
        part: Part,
        band_keys: KeyValue,
        global_keys: KeyValue | None,
        *,
        hidden: Callable[[Block], list[Hidden]],
        relative: RelativeTerm | None,
        blocks: list[Block],
        scale: float,
        dropout: float,
        generator: torch.Generator | None,
        scratch: Scratch,
    ) -> None:
        self.part, self.band_keys, self.global_keys = part, band_keys, global_keys
        self.hidden, self.relative, self.blocks = hidden, relative, blocks
        self.scale, self.dropout, self.generator, self.scratch = scale, dropout, generator, scratch
        self.factor = 1.0 if generator is None else factor_of_kept(dropout)

    def forward(self, query: Tensor, output: Tensor) -> None:
        """Writes the part's share of `output`; both are (batch, positions, heads, head_dim)."""
        for block in self.blocks:
            queries = self.part.within(block)
            query_tile = queries.take(query, "query", self.scratch)
            key_groups = side_by_side(block, self.band_keys, self.global_keys)
            probabilities = self._probabilities(block, query_tile, key_groups)
            keep = self._keep_mask(probabilities)
            if keep is not None:
                probabilities.mul_(keep)
            attended = self.scratch("attended", tuple(query_tile.shape))
            for columns, keys in key_groups:
                accumulate(attended, probabilities[:, :, columns], keys.value, columns, self.factor)
            queries.put(attended, output)

    def backward(self, query: Tensor, d_output: Tensor, query_gradient: Tensor) -> PartGradients:
        """Writes the part's share of `query_gradient`, and returns the other gradients; arguments as in `forward`."""
        band_gradient = KeyValue(
            self.scratch("key gradient", tuple(self.band_keys.key.shape)).zero_(),
            self.scratch("value gradient", tuple(self.band_keys.value.shape)).zero_(),
        )
        global_gradient = None if self.global_keys is None else KeyValue(*map(torch.zeros_like, self.global_keys))
        relative_gradient = None if self.relative is None else self.relative.zero_gradients()
        for block in self.blocks:
            queries = self.part.within(block)
            query_tile = queries.take(query, "query", self.scratch)
            d_out = queries.take(d_output, "output gradient", self.scratch)
            key_groups = side_by_side(block, self.band_keys, self.global_keys)
            probabilities = self._probabilities(block, query_tile, key_groups)
            keep = self._keep_mask(probabilities)
            weights = probabilities if keep is None else keep.mul_(probabilities)
            gradient_groups = side_by_side(block, band_gradient, global_gradient)

            d_scores = self.scratch("score gradient", tuple(probabilities.shape))
            for (columns, keys), (_, of_keys) in zip(key_groups, gradient_groups, strict=True):
                of_keys.value.baddbmm_(weights[:, :, columns].transpose(1, 2), d_out, alpha=self.factor)
                d_scores[:, :, columns].baddbmm_(d_out, keys.value.transpose(1, 2), beta=0, alpha=self.factor)
            through_softmax(d_scores, probabilities, weights)
            d_query = self.scratch("gradient of the block", tuple(query_tile.shape))
            for (columns, keys), (_, of_keys) in zip(key_groups, gradient_groups, strict=True):
                part = d_scores[:, :, columns]
                accumulate(d_query, part, keys.key, columns, self.scale)
                of_keys.key.baddbmm_(part.transpose(1, 2), query_tile, alpha=self.scale)
            queries.put(d_query, query_gradient)
            if self.relative is not None and relative_gradient is not None:
                self.relative.backward(block, d_scores, relative_gradient)
        relative_query, relative_key = relative_gradient or (None, None)
        return PartGradients(band_gradient, relative_query, SharedGradients(global_gradient, relative_key))

    def _probabilities(self, block: Block, query: Tensor, key_groups: list[tuple[slice, KeyValue]]) -> Tensor:
        """Returns the tile's probabilities (sequences, rows, columns), exactly 0 where a key is hidden."""
        scores = self.scratch("probabilities", (*query.shape[:2], key_groups[-1][0].stop))
        beta = 0
        if self.relative is not None:
            scores.copy_(self.relative.of(block))
            beta = 1
        for columns, keys in key_groups:
            scores[:, :, columns].baddbmm_(query, keys.key.transpose(1, 2), beta=beta, alpha=self.scale)
        for columns, addend in self.hidden(block):
            scores[:, :, columns].unflatten(0, (-1, addend.shape[0])).add_(addend)
        return torch.softmax(scores, -1, out=scores)

    def _keep_mask(self, probabilities: Tensor) -> Tensor | None:
        """Returns which probabilities dropout keeps, 1 or 0, or None without dropout."""
        if self.generator is None:
            return None
        return draw_kept(self.scratch("kept", tuple(probabilities.shape)), self.dropout, self.generator)


def side_by_side(block: Block, band: KeyValue, everywhere: KeyValue | None) -> list[tuple[slice, KeyValue]]:
    """Returns the keys that a tile looks at, global ones first, each with the columns of the tile they take."""
    first = 0 if everywhere is None else everywhere.key.shape[1]
    of_band = (slice(first, first + block.high - block.low), band.between(block.low, block.high))
    return [of_band] if everywhere is None else [(slice(0, first), everywhere), of_band]


def accumulate(total: Tensor, left: Tensor, right: Tensor, columns: slice, scale: float) -> None:
    """Adds `scale * left @ right` to `total`; the first columns of a tile overwrite what was there."""
    total.baddbmm_(left, right, beta=0 if columns.start == 0 else 1, alpha=scale)


def through_softmax(gradient: Tensor, probabilities: Tensor, weights: Tensor) -> None:
    """Turns the gradient of the kept probabilities into that of the scores, in place.

    Args:
        gradient: (sequences, rows, columns).
        probabilities: what softmax gave, likewise.
        weights: these after dropout, 0 where they were dropped; without dropout the same tensor.
    """
    if weights is probabilities:
        torch.ops.aten._softmax_backward_data.out(gradient, weights, -1, weights.dtype, grad_input=gradient)
    else:
        gradient.mul_(weights)
        gradient.addcmul_(probabilities, gradient.sum(-1, keepdim=True), value=-1)
