"""Attention of an LED decoder: to the tokens written so far and to the encoder's states, both with a memory.

Projections that read the same tensor are one product. Beams that write about one document are further queries to its
one set of keys and values, which is never copied.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.cpu.linear import Linear


class KeyValue(NamedTuple):
    """What can be attended to."""

    key: Tensor
    """(rows, heads, positions, head_dim)."""
    value: Tensor
    """(rows, heads, positions, head_dim)."""

    def followed_by(self, new: "KeyValue") -> "KeyValue":
        """Return these positions and behind them new ones of the same rows."""
        return KeyValue(*(torch.cat(pair, dim=2) for pair in zip(self, new, strict=True)))

    def rows(self, index: Tensor) -> "KeyValue":
        """Return the rows that `index`, (new rows,) long, names."""
        return KeyValue(*(each.index_select(0, index) for each in self))

    def contiguous(self) -> "KeyValue":
        """Return the same, laid out for being read many times."""
        return KeyValue(*(each.contiguous() for each in self))


class DecoderSelfAttention(nn.Module):
    """Every token attends to itself and the tokens before it.

    Args:
        width: size of a hidden state.
        heads: number of heads; divides the width.
        dropout: probability of dropping an attention probability while training.
    """

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)

    def project(self, hidden: Tensor) -> tuple[Tensor, KeyValue]:
        """Return queries, (rows, heads, positions, head_dim), and what offers itself to them.

        Args:
            hidden: (rows, positions, width).
        """
        query, key, value = self.query_key_value(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return query, KeyValue(key, value)

    def forward(self, query: Tensor, known: KeyValue, visible: Tensor | None, *, causal: bool) -> Tensor:
        """Return what the heads gather, (rows, positions, width), which `out_proj` is to mix.

        Args:
            query: of `project`.
            known: of `project`, behind what was remembered.
            visible: bool, broadcasting to (rows, heads, positions, known positions); None: everything.
            causal: whether, without `visible`, the positions are all that is known, and each sees itself and those
                before it.
        """
        attended = functional.scaled_dot_product_attention(
            query,
            known.key,
            known.value,
            attn_mask=visible,
            is_causal=causal,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).flatten(2)

    def probabilities(self, query: Tensor, known: KeyValue, visible: Tensor | None, *, causal: bool) -> Tensor:
        """Return who attends to whom, (rows, heads, positions, known positions); arguments as in `forward`."""
        if causal:
            visible = looking_back(query.shape[2], known.key.shape[2], query.device)
        return probabilities(query, known.key, visible)


class CrossAttention(nn.Module):
    """Every token of the decoder attends to all states of the encoder; arguments as in `DecoderSelfAttention`."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.out_proj = Linear(width, width)

    def read(self, states: Tensor) -> KeyValue:
        """Return what can be attended to, of the encoder's states (documents, positions, width)."""
        return KeyValue(*self.key_value(states).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4))

    def project(self, hidden: Tensor, documents: int) -> Tensor:
        """Return the queries (documents, heads, rows per document * positions, head_dim).

        Args:
            hidden: (rows, positions, width); the rows of a document follow each other, as many for each.
        """
        query = self.q_proj(hidden).unflatten(0, (documents, -1)).flatten(1, 2)
        return query.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, hidden: Tensor, source: KeyValue, visible: Tensor | None) -> Tensor:
        """Return what the heads gather, in the shape of `hidden`, which `out_proj` is to mix.

        Args:
            hidden: as in `project`.
            source: of `read`.
            visible: (documents, 1, 1, source positions) bool, False for padding; None: there is none.
        """
        attended = functional.scaled_dot_product_attention(
            self.project(hidden, source.key.shape[0]),
            source.key,
            source.value,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).reshape(hidden.shape)

    def probabilities(self, hidden: Tensor, source: KeyValue, visible: Tensor | None) -> Tensor:
        """Return who attends to what, (rows, heads, positions, source positions); arguments as in `forward`."""
        found = probabilities(self.project(hidden, source.key.shape[0]), source.key, visible)
        return found.unflatten(2, (-1, hidden.shape[1])).transpose(1, 2).flatten(0, 1)


def looking_back(positions: int, known: int, device: torch.device) -> Tensor:
    """Return which of all known positions each of the last ones may see, (positions, known) bool."""
    return torch.ones(positions, known, dtype=torch.bool, device=device).tril(known - positions)


def probabilities(query: Tensor, key: Tensor, visible: Tensor | None) -> Tensor:
    """Return who attends to whom, (rows, heads, queries, keys), without dropout; for inspection, not fast."""
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3))
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
