"""Longformer self-attention as a layer: projections, the band, and the rows of global tokens."""

from typing import NamedTuple

from torch import Tensor, nn

from longformer.attention.band import Band
from longformer.attention.global_rows import global_probabilities, global_rows
from longformer.attention.local_rows import local_rows
from longformer.attention.probabilities import band_probabilities
from longformer.attention.projections import separate
from longformer.attention.tokens import Tokens
from longformer.cpu.linear import Linear


class AttentionProbabilities(NamedTuple):
    """Who looked at whom, in Hugging Face's documented format (spec 1.4), without dropout."""

    local: Tensor
    """(batch, heads, positions, global tokens + left + 1 + right): first the global keys in the order of their
    positions, then the band. A global key inside the band is 0 there, and the row of a global token is all 0."""
    of_global_tokens: Tensor | None
    """(batch, heads, positions, global tokens): what each global token pays to every position."""


class BandAndGlobalAttention(nn.Module):
    """The computation of the layer, whoever owns the local projections; subclasses provide `local_projections`.

    Args:
        heads: number of heads.
        band: what a token sees around itself.
        dropout: probability of dropping an attention probability while training.
        backend: engine of `banded_attention`.
    """

    query_global: nn.Linear
    key_global: nn.Linear
    value_global: nn.Linear

    def __init__(self, heads: int, band: Band, *, dropout: float, backend: str) -> None:
        super().__init__()
        self.heads, self.band, self.dropout, self.backend = heads, band, dropout, backend

    def local_projections(self, hidden: Tensor, tokens: Tokens) -> tuple[Tensor, ...]:
        """Return the projections of the layer's input, apart or packed; see `separate`."""
        raise NotImplementedError

    def attend(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Return the attended values of all heads, in the shape of `hidden`; 0 at padded positions.

        Args:
            hidden: (batch, positions, width), or (packed, width) where `tokens` has a packing.
            tokens: what the positions hold.
        """
        projections = self.local_projections(hidden, tokens)
        attended = local_rows(projections, tokens, self.band, dropout=self._dropout(), backend=self.backend).flatten(2)
        if tokens.global_tokens is not None:
            rows = global_rows(
                tokens.unpack(hidden),
                tokens.global_tokens,
                tokens,
                query=self.query_global,
                key=self.key_global,
                value=self.value_global,
                heads=self.heads,
                dropout=self._dropout(),
                backend=self.backend,
            )
            attended = tokens.global_tokens.replace_rows(attended, rows)
        return tokens.pack(attended)

    def probabilities(self, hidden: Tensor, tokens: Tokens) -> AttentionProbabilities:
        """Return the probabilities that `attend` uses; computed for inspection, block by block, not fast."""
        query, key, _ = separate(self.local_projections(hidden, tokens))
        of_global_tokens = None
        if tokens.global_tokens is not None:
            of_global_tokens = global_probabilities(
                tokens.unpack(hidden),
                tokens.global_tokens,
                tokens.token_mask,
                query=self.query_global,
                key=self.key_global,
                heads=self.heads,
            )
        return AttentionProbabilities(band_probabilities(query, key, self.band, tokens), of_global_tokens)

    def _dropout(self) -> float:
        return self.dropout if self.training else 0.0


class LongformerSelfAttention(BandAndGlobalAttention):
    """Every token attends to its band and to the global tokens; a global token attends to everyone (spec 1.1).

    The three local projections are one product whose parts attention reads in place. Global rows have projections of
    their own and replace the local result. Memory is linear in the positions.

    Args:
        width: size of a hidden state.
        heads: number of heads; must divide the width.
        band, dropout, backend: as in `BandAndGlobalAttention`.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, band: Band, *, dropout: float = 0.0, backend: str = "auto") -> None:
        super().__init__(heads, band, dropout=dropout, backend=backend)
        if width % heads:
            raise ValueError(f"heads must divide width, got heads {heads} and width {width}")
        self.query_key_value = Linear(width, 3 * width)
        self.query_global = Linear(width, width)
        self.key_global = Linear(width, width)
        self.value_global = Linear(width, width)

    def forward(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Return the attended values of all heads; see `attend`."""
        return self.attend(hidden, tokens)

    def local_projections(self, hidden: Tensor, tokens: Tokens) -> tuple[Tensor, ...]:
        """Return queries, keys and values packed in one tensor."""
        packed = tokens.unpack(self.query_key_value(hidden))
        return (packed.unflatten(-1, (3, self.heads, -1)),)
