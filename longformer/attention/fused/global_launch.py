"""Start the kernels of global attention, and merge the results of the chunks of keys."""

from dataclasses import dataclass

import torch
from torch import Tensor

from longformer.attention.fused import tiles as table
from longformer.attention.fused.kernels.global_attention import (
    global_attention_kernel,
    global_attention_key_gradient_kernel,
    global_attention_query_gradient_kernel,
)
from longformer.attention.fused.launch import Call, ceil_div, start, strided


@dataclass(frozen=True)
class GlobalAttentionCall:
    """Queries that see every token of their sequence."""

    query: Tensor
    """(sequences, count, heads, head_dim)"""
    tokens: Call
    """Whose keys and values they see, with padding, scale and dropout; its own queries and band are not used."""

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the output like `query` and lse (sequences, heads, count) float32, +inf for a row without keys."""
        acc, row_sum, row_max = self._chunks(self.tokens.sizes["WIDTH"]), self._chunks(), self._chunks()
        self._start_on_chunks(
            global_attention_kernel, strided(self.query), strided(self.tokens.key), strided(self.tokens.value),
            acc, row_sum, row_max,
        )  # fmt: skip
        best = row_max.amax(0)
        share = torch.exp2(row_max - best)
        row_sum = (row_sum * share).sum(0)
        seen = row_sum > 0
        row_sum = torch.where(seen, row_sum, 1.0)
        output = (acc * share[..., None]).sum(0)[..., : self.query.shape[3]]
        output = output / (row_sum * (1 - self.tokens.dropout))[..., None]
        output = torch.where(seen[..., None], output, 0.0).transpose(1, 2).to(self.query.dtype).contiguous()
        return output, torch.where(seen, best + row_sum.log2(), torch.inf)

    def backward(self, output: Tensor, lse: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of query, key and value."""
        # What is kept of it: see `query_gradient_kernel`.
        delta = (output.float() * d_out.float()).sum(-1) * (1 - self.tokens.dropout)
        delta = delta.transpose(1, 2).contiguous()
        heads, head_dim = self.query.shape[2:]
        d_key = torch.empty(self.tokens.key.shape, dtype=self.query.dtype, device=self.query.device)
        d_value = torch.empty_like(d_key)
        known = (
            strided(self.query), strided(self.tokens.key), strided(self.tokens.value), strided(d_out),
            lse, delta,
        )  # fmt: skip
        tile = self.tokens.tiles.extra_gradient
        grid = ceil_div(self.tokens.longest, tile.step), self.tokens.sequences * heads
        start(
            global_attention_key_gradient_kernel, grid, tile,
            *known, strided(d_key), strided(d_value), self.tokens.problem, self.query.shape[1],
            QUERIES=tile.rows, KEYS=tile.step, **self.tokens.sizes,
        )  # fmt: skip
        partial = self._chunks(self.tokens.sizes["WIDTH"])
        self._start_on_chunks(global_attention_query_gradient_kernel, *known, partial)
        d_query = partial.sum(0)[..., :head_dim].transpose(1, 2).to(self.query.dtype).contiguous()
        return d_query, d_key, d_value

    def _start_on_chunks(self, kernel: object, *arguments: object) -> None:
        tile, (groups, chunk, chunks) = self.tokens.tiles.extra_gradient, self._split()
        sequences, count, heads, _ = self.query.shape
        start(
            kernel, (chunks, sequences * heads, groups), tile, *arguments, self.tokens.problem, count, chunk,
            QUERIES=tile.rows, KEYS=tile.step, **self.tokens.sizes,
        )  # fmt: skip

    def _split(self) -> tuple[int, int, int]:
        """Returns the number of groups of queries, the keys of a chunk and the number of chunks."""
        groups = ceil_div(self.query.shape[1], self.tokens.tiles.extra_gradient.rows)
        chunk = table.CHUNK * groups
        return groups, chunk, ceil_div(self.tokens.longest, chunk)

    def _chunks(self, *width: int) -> Tensor:
        sequences, count, heads, _ = self.query.shape
        shape = (self._split()[2], sequences, heads, count, *width)
        return torch.empty(shape, dtype=torch.float32, device=self.query.device)
