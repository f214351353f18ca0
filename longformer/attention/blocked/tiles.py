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
from longformer.attention.blocked.relative import RelativeGradients, RelativeTerm
from longformer.attention.blocked.visibility import Hidden
from longformer.attention.projections import KeyValue
from longformer.cpu.dropout import draw_kept, factor_of_kept


class PartGradients(NamedTuple):
    """What backward finds for one part beside the gradient of the query, laid out like the part's inputs."""

    band_keys: KeyValue
    global_keys: KeyValue | None
    relative: RelativeGradients | None


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
        scratch: memory for tiles and results; a result holds until the next part is computed.
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
        """Write the part's share of `output`; both are (batch, positions, heads, head_dim)."""
        for block in self.blocks:
            rows = self.part.within(block)
            asking = rows.take(query, "query", self.scratch)
            every_keys = side_by_side(block, self.band_keys, self.global_keys)
            probabilities = self._probabilities(block, asking, every_keys)
            kept = self._kept(probabilities)
            if kept is not None:
                probabilities.mul_(kept)
            attended = self.scratch("attended", tuple(asking.shape))
            for columns, keys in every_keys:
                accumulate(attended, probabilities[:, :, columns], keys.value, columns, self.factor)
            rows.put(attended, output)

    def backward(self, query: Tensor, output_gradient: Tensor, query_gradient: Tensor) -> PartGradients:
        """Write the part's share of `query_gradient`, and return the other gradients; arguments as in `forward`."""
        band_gradient = self._zeros("band", self.band_keys)
        global_gradient = None if self.global_keys is None else self._zeros("global", self.global_keys)
        relative_gradient = None if self.relative is None else self.relative.zero_gradients()
        for block in self.blocks:
            rows = self.part.within(block)
            asking = rows.take(query, "query", self.scratch)
            gradient = rows.take(output_gradient, "output gradient", self.scratch)
            every_keys = side_by_side(block, self.band_keys, self.global_keys)
            probabilities = self._probabilities(block, asking, every_keys)
            kept = self._kept(probabilities)
            used = probabilities if kept is None else kept.mul_(probabilities)
            every_gradient = side_by_side(block, band_gradient, global_gradient)

            score_gradient = self.scratch("score gradient", tuple(probabilities.shape))
            for (columns, keys), (_, keys_gradient) in zip(every_keys, every_gradient, strict=True):
                keys_gradient.value.add_(self._product(used[:, :, columns].transpose(1, 2), gradient, self.factor))
                score_gradient[:, :, columns].baddbmm_(gradient, keys.value.transpose(1, 2), beta=0, alpha=self.factor)
            through_softmax(score_gradient, probabilities, used)
            of_query = self.scratch("gradient of the block", tuple(asking.shape))
            for (columns, keys), (_, keys_gradient) in zip(every_keys, every_gradient, strict=True):
                part = score_gradient[:, :, columns]
                accumulate(of_query, part, keys.key, columns, self.scale)
                keys_gradient.key.add_(self._product(part.transpose(1, 2), asking, self.scale))
            rows.put(of_query, query_gradient)
            if self.relative is not None and relative_gradient is not None:
                self.relative.backward(block, score_gradient, relative_gradient)
        return PartGradients(band_gradient, global_gradient, relative_gradient)

    def _probabilities(self, block: Block, query: Tensor, every_keys: list[tuple[slice, KeyValue]]) -> Tensor:
        """Return the tile's probabilities (sequences, rows, columns), exactly 0 where a key is hidden."""
        scores = self.scratch("probabilities", (*query.shape[:2], every_keys[-1][0].stop))
        beta = 0
        if self.relative is not None:
            scores.copy_(self.relative.of(block))
            beta = 1
        for columns, keys in every_keys:
            scores[:, :, columns].baddbmm_(query, keys.key.transpose(1, 2), beta=beta, alpha=self.scale)
        for columns, addend in self.hidden(block):
            scores[:, :, columns].unflatten(0, (-1, addend.shape[0])).add_(addend)
        return torch.softmax(scores, -1, out=scores)

    def _kept(self, probabilities: Tensor) -> Tensor | None:
        """Return which probabilities dropout keeps, 1 or 0, or None without dropout."""
        if self.generator is None:
            return None
        return draw_kept(self.scratch("kept", tuple(probabilities.shape)), self.dropout, self.generator)

    def _product(self, left: Tensor, right: Tensor, scale: float) -> Tensor:
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


def accumulate(total: Tensor, left: Tensor, right: Tensor, columns: slice, scale: float) -> None:
    """Add `scale * left @ right` to `total`; the first columns of a tile overwrite what was there."""
    total.baddbmm_(left, right, beta=0 if columns.start == 0 else 1, alpha=scale)


def through_softmax(gradient: Tensor, probabilities: Tensor, used: Tensor) -> None:
    """Turn the gradient of the kept probabilities into that of the scores, in place.

    Args:
        gradient: (sequences, rows, columns).
        probabilities: what softmax gave, likewise.
        used: these, 0 where dropout dropped them; the same tensor without dropout.
    """
    if used is probabilities:
        torch.ops.aten._softmax_backward_data.out(gradient, used, -1, used.dtype, grad_input=gradient)
    else:
        gradient.mul_(used)
        gradient.addcmul_(probabilities, gradient.sum(-1, keepdim=True), value=-1)
