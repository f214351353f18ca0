"""One call of the portable engine: its arguments, and the walk over its parts forward and backward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from longformer.attention.band import Band
from longformer.attention.blocked.global_keys import GlobalKeys
from longformer.attention.blocked.partition import Scratch, block_rows, computing_dtype, parts_of
from longformer.attention.blocked.relative import RelativeTerm
from longformer.attention.blocked.tiles import PartAttention
from longformer.attention.blocked.visibility import Visibility
from longformer.attention.projections import KeyValue
from longformer.cpu.buffer_pool import empty_like


@dataclass(frozen=True)
class Problem:
    """The arguments of `banded_attention`, resolved; `seed` () int64 on the CPU is there when dropout is not 0."""

    query: Tensor
    key: Tensor
    value: Tensor
    token_mask: Tensor | None
    global_mask: Tensor | None
    relative_query: Tensor | None
    relative_key: Tensor | None
    seed: Tensor | None
    left: int
    right: int
    dilations: Sequence[int]
    causal: bool
    scale: float
    dropout: float

    def forward(self) -> Tensor:
        """Return the attended values, (batch, positions, heads, head_dim)."""
        output = empty_like(self.query)
        for attention in self._parts():
            attention.forward(self.query, output)
        if self.token_mask is not None:
            output.masked_fill_(self._padding(self.token_mask), 0)
        return output

    def backward(self, output_gradient: Tensor, *, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Write the gradients of query, key and value, and return those of the relative query and key, if any."""
        relative_query = relative_key = None
        if self.relative_query is not None and self.relative_key is not None:
            relative_query = empty_like(self.relative_query)
            relative_key = torch.zeros_like(self.relative_key, dtype=computing_dtype(self.query))
        if self.token_mask is not None:
            output_gradient = output_gradient.masked_fill(self._padding(self.token_mask), 0)
        for attention in self._parts():
            part = attention.part
            gradients = attention.backward(self.query, output_gradient, query)
            part.put(gradients.band_keys.key, key)
            part.put(gradients.band_keys.value, value)
            if gradients.global_keys is not None and self._global_keys is not None:
                self._global_keys.add_gradients(part, gradients.global_keys)
            if gradients.relative is not None and relative_query is not None and relative_key is not None:
                part.put(gradients.relative.query, relative_query)
                relative_key[:, part.heads] += gradients.relative.key.transpose(0, 1)
        if self._global_keys is not None:
            self._global_keys.scatter_gradients(key, value)
        if relative_query is None or relative_key is None:
            return []
        return [relative_query, relative_key.to(self.query.dtype)]

    @cached_property
    def _global_keys(self) -> GlobalKeys | None:
        if self.global_mask is None:
            return None
        return GlobalKeys.gather(self.key, self.value, self.global_mask, self.token_mask)

    def _parts(self) -> Iterator[PartAttention]:
        """Yield the attention of every part, always in the same order: the draws of dropout depend on it."""
        scratch = Scratch(computing_dtype(self.query), self.query.device)
        generator = None
        if self.seed is not None:
            generator = torch.Generator(self.query.device).manual_seed(int(self.seed))
        band = Band(self.left, self.right)
        visibility = Visibility(self.query, band, self.token_mask, self._global_keys, causal=self.causal)
        for part in parts_of(self.query, left=self.left, right=self.right, dilations=self.dilations):
            keys = KeyValue(part.take(self.key, "key", scratch), part.take(self.value, "value", scratch))
            relative = None
            if self.relative_query is not None and self.relative_key is not None:
                relative = RelativeTerm(part, self.relative_query, self.relative_key, scale=self.scale, scratch=scratch)
            yield PartAttention(
                part,
                keys,
                None if self._global_keys is None else self._global_keys.take(part, scratch),
                hidden=partial(visibility.of, part),
                relative=relative,
                blocks=list(part.band.blocks(keys.key.shape[1], block_rows(self.left, self.right))),
                scale=self.scale,
                dropout=self.dropout,
                generator=generator,
                scratch=scratch,
            )

    @staticmethod
    def _padding(token_mask: Tensor) -> Tensor:
        return ~token_mask[:, :, None, None]
