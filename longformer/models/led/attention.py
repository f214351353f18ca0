"""Attention of an LED decoder: to the tokens so far and to the encoder's states, both with cached keys and values.

Projections that read the same tensor are one product. Beams that write about one document are further queries to its
one set of keys and values, which is never copied.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class KeyValue(NamedTuple):
    """What can be attended to."""

    key: Tensor
    """(sequences, heads, positions, head_dim)."""
    value: Tensor
    """(sequences, heads, positions, head_dim)."""

    def followed_by(self, new: "KeyValue") -> "KeyValue":
        """Returns these positions and behind them new ones of the same sequences."""
        return KeyValue(*(torch.cat(pair, dim=2) for pair in zip(self, new, strict=True)))

    def select(self, index: Tensor) -> "KeyValue":
        """Returns the sequences that `index`, (new sequences,) long, names."""
        return KeyValue(*(each.index_select(0, index) for each in self))

    def contiguous(self) -> "KeyValue":
        """Returns the same, laid out for being read many times."""
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
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def project(self, hidden: Tensor, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """Returns queries, (sequences, heads, positions, head_dim), and the keys and values of all tokens so far."""
        query, key, value = self.query_key_value(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        known = KeyValue(key, value)
        return query, known if past is None else past.followed_by(known)

    def forward(
        self, hidden: Tensor, past: KeyValue | None, visible: Tensor | None, *, causal: bool
    ) -> tuple[Tensor, KeyValue]:
        """Returns what `out_proj` mixes, (sequences, positions, width), and the keys and values of all tokens so far.

        Args:
            hidden: (sequences, positions, width).
            past: keys and values of earlier tokens; None: there are none.
            visible: bool, broadcasting to (sequences, heads, positions, known positions); None: everything.
            causal: whether, without `visible`, the positions are all that is known, and each sees itself and those
                before it.
        """
        query, known = self.project(hidden, past)
        attended = functional.scaled_dot_product_attention(
            query,
            known.key,
            known.value,
            attn_mask=visible,
            is_causal=causal,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).flatten(2), known

    def probabilities(self, hidden: Tensor, past: KeyValue | None, visible: Tensor | None, *, causal: bool) -> Tensor:
        """Returns who attends to whom, (sequences, heads, positions, known positions); arguments as in `forward`."""
        query, known = self.project(hidden, past)
        if causal:
            visible = causal_mask(query.shape[2], known.key.shape[2], query.device)
        return probabilities(query, known.key, visible)


class CrossAttention(nn.Module):
    """Every token of the decoder attends to all states of the encoder; arguments as in `DecoderSelfAttention`."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)

    def key_values(self, source: Tensor | KeyValue) -> KeyValue:
        """Returns the keys and values of the encoder's states, (documents, positions, width), unless they are given."""
        if isinstance(source, KeyValue):
            return source
        return KeyValue(*self.key_value(source).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4))

    def project(self, hidden: Tensor, documents: int) -> Tensor:
        """Returns the queries (documents, heads, sequences per document * positions, head_dim).

        Args:
            hidden: (sequences, positions, width); the sequences of a document follow each other, as many for each.
        """
        query = self.q_proj(hidden).unflatten(0, (documents, -1)).flatten(1, 2)
        return query.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, hidden: Tensor, source: Tensor | KeyValue, visible: Tensor | None) -> Tensor:
        """Returns what the heads gather, in the shape of `hidden`, which `out_proj` is to mix.

        Args:
            hidden: as in `project`.
            source: the encoder's states, (documents, source positions, width), or `key_values` of them.
            visible: (documents, 1, 1, source positions) bool, False for padding; None: there is none.
        """
        source = self.key_values(source)
        attended = functional.scaled_dot_product_attention(
            self.project(hidden, source.key.shape[0]),
            source.key,
            source.value,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).reshape(hidden.shape)

    def probabilities(self, hidden: Tensor, source: Tensor | KeyValue, visible: Tensor | None) -> Tensor:
        """Returns who attends to what, (sequences, heads, positions, source positions); arguments as in `forward`."""
        source = self.key_values(source)
        found = probabilities(self.project(hidden, source.key.shape[0]), source.key, visible)
        return found.unflatten(2, (-1, hidden.shape[1])).transpose(1, 2).flatten(0, 1)


def causal_mask(positions: int, known: int, device: torch.device) -> Tensor:
    """Returns which of all known positions each of the last ones may see, (positions, known) bool."""
    return torch.ones(positions, known, dtype=torch.bool, device=device).tril(known - positions)


def probabilities(query: Tensor, key: Tensor, visible: Tensor | None) -> Tensor:
    """Returns who attends to whom, (sequences, heads, queries, keys), without dropout; for inspection, not fast."""
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3))
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
