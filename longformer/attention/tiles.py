"""Attention inside one part, a tile of scores at a time: forward, and backward that computes the tiles again.

A tile holds a block of queries against the global keys and the keys of their band, side by side under one
softmax. Nothing but query, key and value has to be kept from forward to backward.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from longformer.attention.band import Block
from longformer.attention.key_set import KeySet
from longformer.attention.relative import RelativeTerm
from longformer.attention.visibility import Visibility


class Scratch:
    """Memory for tiles, used again for every block: fresh pages for each tile would cost more than the sums."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return the buffer `name` in this shape, its content undefined."""
        size = prod(shape)
        if name not in self.buffers or self.buffers[name].numel() < size:
            self.buffers[name] = self.like.new_empty(size)
        return self.buffers[name][:size].view(shape)


class PartAttention:
    """The attention of one part.

    Args:
        query: (sequences, length, head_dim), contiguous, as all tensors of a part.
        band_keys: keys and values at the positions of the queries.
        global_keys: the gathered global keys and values, or None.
        visibility, relative: what is added to the scores.
        blocks: the blocks of queries, in order.
        dropout: probability of dropping a probability.
        generator: source of the dropout's draws; the same state gives the same draws in backward.
    """

    def __init__(
        self,
        query: Tensor,
        band_keys: KeySet,
        global_keys: KeySet | None,
        *,
        visibility: Visibility,
        relative: RelativeTerm | None,
        blocks: list[Block],
        scale: float,
        dropout: float,
        generator: torch.Generator | None,
        scratch: Scratch,
    ) -> None:
        self.query, self.band_keys, self.global_keys = query, band_keys, global_keys
        self.visibility, self.relative, self.blocks = visibility, relative, blocks
        self.scale, self.dropout, self.generator, self.scratch = scale, dropout, generator, scratch

    def forward(self) -> Tensor:
        """Return the attended values, (sequences, length, head_dim)."""
        output = torch.zeros_like(self.query)
        for block in self.blocks:
            probabilities = self._probabilities(block)
            kept = self._kept(probabilities)
            if kept is not None:
                probabilities.mul_(kept)
            for columns, keys in self._key_sets(block):
                output[:, block.start : block.stop].baddbmm_(probabilities[:, :, columns], keys.value)
        return output

    def backward(self, output_gradient: Tensor) -> Tensor:
        """Return the gradient of the query; add those of keys, values and the relative term to their own places."""
        query_gradient = torch.zeros_like(self.query)
        for block in self.blocks:
            rows = slice(block.start, block.stop)
            query, gradient = self.query[:, rows], output_gradient[:, rows]
            probabilities = self._probabilities(block)
            kept = self._kept(probabilities)
            used = (
                probabilities
                if kept is None
                else torch.mul(probabilities, kept, out=self.scratch("used", *probabilities.shape))
            )
            probability_gradient = self.scratch("probability gradient", *probabilities.shape)
            for columns, keys in self._key_sets(block):
                keys.value_gradient.baddbmm_(used[:, :, columns].transpose(1, 2), gradient)
                probability_gradient[:, :, columns].baddbmm_(gradient, keys.value.transpose(1, 2), beta=0)
            if kept is not None:
                probability_gradient.mul_(kept)
            score_gradient = torch.ops.aten._softmax_backward_data.out(
                probability_gradient,
                probabilities,
                -1,
                probabilities.dtype,
                grad_input=self.scratch("scores", *probabilities.shape),
            )
            for columns, keys in self._key_sets(block):
                query_gradient[:, rows].baddbmm_(score_gradient[:, :, columns], keys.key, alpha=self.scale)
                keys.key_gradient.baddbmm_(score_gradient[:, :, columns].transpose(1, 2), query, alpha=self.scale)
            if self.relative is not None:
                self.relative.backward(block, score_gradient)
        return query_gradient

    def _key_sets(self, block: Block) -> Iterator[tuple[slice, KeySet]]:
        """Yield the keys of a tile with the columns they occupy."""
        first = 0
        if self.global_keys is not None:
            first = self.global_keys.key.shape[1]
            yield slice(0, first), self.global_keys
        yield slice(first, first + block.high - block.low), self.band_keys.part(block.low, block.high)

    def _probabilities(self, block: Block) -> Tensor:
        """Return the tile's probabilities (sequences, rows, columns), exactly 0 where a key is hidden."""
        hidden = self.visibility.of(block)
        shape = (self.query.shape[0], *hidden.shape[1:])
        scores = self.scratch("scores", *shape)
        by_example = scores.unflatten(0, (-1, hidden.shape[0]))
        if self.relative is None:
            by_example.copy_(hidden)
        else:
            torch.add(self.relative.of(block).unflatten(0, (-1, hidden.shape[0])), hidden, out=by_example)
        for columns, keys in self._key_sets(block):
            query = self.query[:, block.start : block.stop]
            scores[:, :, columns].baddbmm_(query, keys.key.transpose(1, 2), alpha=self.scale)
        return torch.softmax(scores, -1, out=self.scratch("probabilities", *shape))

    def _kept(self, probabilities: Tensor) -> Tensor | None:
        """Return what dropout multiplies the probabilities with, or None without dropout."""
        if self.dropout == 0:
            return None
        kept = self.scratch("kept", *probabilities.shape)
        return kept.bernoulli_(1 - self.dropout, generator=self.generator).div_(1 - self.dropout)
