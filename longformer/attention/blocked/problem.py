"""One call of the portable engine: its arguments, and the computation of its parts forward and backward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import Tensor

from longformer.attention.band import Band
from longformer.attention.blocked.global_keys import GlobalKeys
from longformer.attention.blocked.partition import Part, Scratch, block_rows, computing_dtype, parts_of
from longformer.attention.blocked.relative import RelativeTerm
from longformer.attention.blocked.tiles import PartAttention, SharedGradients
from longformer.attention.blocked.visibility import Visibility
from longformer.attention.projections import KeyValue
from longformer.cpu.buffer_pool import empty_like
from longformer.cpu.threads import map_in_threads

Result = TypeVar("Result")


@dataclass(frozen=True)
class Problem:
    """The arguments of `banded_attention`, resolved; `seed` () int64 on the CPU is there when dropout is not 0.

    Packed sequences, with `cu_seqlens`, are first taken apart; see `packed`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    token_mask: Tensor | None
    global_mask: Tensor | None
    cu_seqlens: Tensor | None
    relative_query: Tensor | None
    relative_key: Tensor | None
    seed: Tensor | None
    left: int
    right: int
    dilations: Sequence[int]
    causal: bool
    scale: float
    dropout: float

    def forward(self, output: Tensor) -> None:
        """Writes the attended values, (batch, positions, heads, head_dim)."""
        self._for_each_part(lambda attention: attention.forward(self.query, output))
        if self.token_mask is not None:
            output.masked_fill_(self._padding(self.token_mask), 0)

    def backward(self, output_gradient: Tensor, *, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Writes the gradients of query, key and value, and returns those of the relative query and key, if any."""
        relative_query = relative_key = None
        if self.relative_query is not None and self.relative_key is not None:
            relative_query = empty_like(self.relative_query)
            relative_key = torch.zeros_like(self.relative_key, dtype=computing_dtype(self.query))
        if self.token_mask is not None:
            output_gradient = output_gradient.masked_fill(self._padding(self.token_mask), 0)

        def of_part(attention: PartAttention) -> tuple[Part, SharedGradients]:
            part = attention.part
            gradients = attention.backward(self.query, output_gradient, query)
            part.put(gradients.band_keys.key, key)
            part.put(gradients.band_keys.value, value)
            if gradients.relative_query is not None and relative_query is not None:
                part.put(gradients.relative_query, relative_query)
            return part, gradients.shared

        # What several parts add to is added here, in their order: which thread was faster changes no rounding.
        for part, shared in self._for_each_part(of_part):
            if shared.global_keys is not None and self._global_keys is not None:
                self._global_keys.add_gradients(part, shared.global_keys)
            if shared.relative_key is not None and relative_key is not None:
                relative_key[:, part.heads] += shared.relative_key.transpose(0, 1)
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

    def _for_each_part(self, compute: Callable[[PartAttention], Result]) -> list[Result]:
        """Returns what `compute` gives for every part, in order; on a CPU parts are computed side by side."""
        scratch = Scratch(computing_dtype(self.query), self.query.device)
        band = Band(self.left, self.right)
        visibility = Visibility(self.query, band, self.token_mask, self._global_keys, causal=self.causal)

        def of_part(numbered: tuple[int, Part]) -> Result:
            number, part = numbered
            return compute(self._attention(part, number, visibility, scratch))

        parts = list(enumerate(parts_of(self.query, left=self.left, right=self.right, dilations=self.dilations)))
        return map_in_threads(of_part, parts) if self.query.device.type == "cpu" else [of_part(part) for part in parts]

    def _attention(self, part: Part, number: int, visibility: Visibility, scratch: Scratch) -> PartAttention:
        generator = relative = None
        if self.seed is not None:
            generator = torch.Generator(self.query.device).manual_seed(int(self.seed) + number)
        if self.relative_query is not None and self.relative_key is not None:
            relative = RelativeTerm(part, self.relative_query, self.relative_key, scale=self.scale, scratch=scratch)
        keys = KeyValue(part.take(self.key, "key", scratch), part.take(self.value, "value", scratch))
        return PartAttention(
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
