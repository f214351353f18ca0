"""Causal banded self-attention of the character model: projections and positions around `banded_attention`."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from longformer.attention.op import banded_attention
from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.positions import distance_sinusoids, rotated


class Projections(NamedTuple):
    """What attention compares and mixes, each (batch, positions, heads, head_size)."""

    query: Tensor
    key: Tensor
    value: Tensor
    relative_query: Tensor | None
    """The query compared with distances instead of keys; only with transformer_xl positions."""


class CausalSelfAttention(nn.Module):
    """Every position attends to itself and `window` earlier ones, each head at its own dilation.

    With transformer_xl positions the score is (q + u).k + (q + v).(W_r R[distance]) (arXiv 1901.02860, section 3.3);
    W_r belongs to the layer, u and v are shared by all layers. No projection has a bias (semantics.md 3.2).
    """

    def __init__(self, config: CharacterModelConfig, layer: int, *, backend: str) -> None:
        super().__init__()
        self.window = config.windows[layer]
        self.dilations = config.head_dilations(layer)
        self.heads, self.head_size = config.heads, config.head_size
        self.attention_dropout = config.attention_dropout
        self.backend = backend
        # One packed product for queries, keys and values; attention reads the parts in place.
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.relative: nn.Linear | None = None
        if config.position == "transformer_xl":
            self.relative = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.position_dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, positions: tuple[Tensor, ...]) -> Tensor:
        """Returns (batch, positions, hidden_size); for `positions` see `project`."""
        return self.mix(self.attend(self.project(hidden, positions)))

    def project(self, hidden: Tensor, positions: tuple[Tensor, ...]) -> Projections:
        """Returns queries, keys and values of (batch, positions, hidden_size).

        Args:
            hidden: normalised hidden states.
            positions: what all layers share: (rotations,) for rotary, (u, v), each (heads, head_size), for
                transformer_xl.
        """
        packed = self.query_key_value(hidden).unflatten(-1, (3, self.heads, self.head_size))
        query, key, value = packed.unbind(2)
        if self.relative is None:
            (rotations,) = positions
            return Projections(rotated(query, rotations), rotated(key, rotations), value, None)
        # Under autocast the products are in half precision, the biases are not.
        content_bias, distance_bias = (bias.to(query.dtype) for bias in positions)
        return Projections(query + content_bias, key, value, query + distance_bias)

    def attend(self, projections: Projections) -> Tensor:
        """Returns the attended values, (batch, positions, heads, head_size)."""
        query, key, value, relative_query = projections
        # A window longer than the text has columns that nobody sees.
        window = min(self.window, query.shape[1] - 1)
        return banded_attention(
            query,
            key,
            value,
            left=window,
            right=0,
            dilation=self.dilations,
            causal=True,
            relative_query=relative_query,
            relative_key=self.relative_keys(window, query.device),
            dropout=self.attention_dropout if self.training else 0.0,
            backend=self.backend,
        )

    def mix(self, attended: Tensor) -> Tensor:
        """Returns the heads' results mixed by the output projection, (batch, positions, hidden_size)."""
        return self.output(attended.flatten(-2))

    def relative_keys(self, window: int, device: torch.device) -> Tensor | None:
        """Returns W_r R[distance] of every column of the band, farthest first: (window + 1, heads, head_size)."""
        if self.relative is None:
            return None
        columns = torch.arange(window, -1, -1, device=device)
        by_dilation = {}
        for dilation in set(self.dilations):
            sinusoids = distance_sinusoids(columns * dilation, self.heads * self.head_size)
            projected = self.relative(self.position_dropout(sinusoids.to(self.relative.weight.dtype)))
            by_dilation[dilation] = projected.unflatten(-1, (self.heads, self.head_size))
        return torch.stack([by_dilation[dilation][:, head] for head, dilation in enumerate(self.dilations)], dim=1)
