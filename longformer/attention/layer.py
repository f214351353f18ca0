"""Longformer self-attention as a layer: projections, sliding-window attention and global attention."""

from typing import NamedTuple

from torch import Tensor, nn

from longformer.attention.band import Band
from longformer.attention.global_attention import global_attention, global_probabilities
from longformer.attention.metadata import AttentionMetadata
from longformer.attention.probabilities import band_probabilities
from longformer.attention.projections import separate
from longformer.attention.sliding_window import sliding_window_attention


class AttentionProbabilities(NamedTuple):
    """Who looked at whom, in Hugging Face's documented format (semantics.md 1.4), without dropout."""

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

    def local_projections(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Returns the projections of the layer's input, (batch, positions, ...), apart or in one; see `separate`."""
        raise NotImplementedError

    def attend(self, hidden: Tensor, metadata: AttentionMetadata) -> Tensor:
        """Returns the attended values of all heads, in the shape of `hidden`; 0 at padded positions.

        Args:
            hidden: (batch, positions, width), or (packed, width) where `metadata` has a packing.
            metadata: padding, sequences and global tokens of the batch.
        """
        # For the engines a packed batch is one row.
        projections = self.local_projections(hidden if metadata.packing is None else hidden[None])
        attended = sliding_window_attention(
            projections, metadata, self.band, dropout=self._dropout(), backend=self.backend
        )
        attended = attended.reshape(hidden.shape)
        if metadata.global_tokens is not None:
            of_global_tokens = global_attention(
                hidden,
                metadata.global_tokens,
                metadata,
                query=self.query_global,
                key=self.key_global,
                value=self.value_global,
                heads=self.heads,
                dropout=self._dropout(),
                backend=self.backend,
            )
            attended = metadata.global_tokens.scatter(attended, of_global_tokens)
        return attended

    def probabilities(self, hidden: Tensor, metadata: AttentionMetadata) -> AttentionProbabilities:
        """Returns the probabilities that `attend` uses; computed for inspection, block by block, not fast.

        Args:
            hidden: (batch, positions, width).
            metadata: padding and global tokens of the batch, which must not be packed.
        """
        query, key, _ = separate(self.local_projections(hidden))
        of_global_tokens = None
        if metadata.global_tokens is not None:
            of_global_tokens = global_probabilities(
                hidden,
                metadata.global_tokens,
                metadata.token_mask,
                query=self.query_global,
                key=self.key_global,
                heads=self.heads,
            )
        return AttentionProbabilities(band_probabilities(query, key, self.band, metadata), of_global_tokens)

    def _dropout(self) -> float:
        return self.dropout if self.training else 0.0


class LongformerSelfAttention(BandAndGlobalAttention):
    """Every token attends to its band and to the global tokens; a global token attends to everyone (semantics.md 1.1).

    The three local projections are one matrix product whose parts attention reads in place. Global tokens have
    projections of their own, whose result replaces the local one. Memory is linear in the positions.

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
        self.query_key_value = nn.Linear(width, 3 * width)
        self.query_global = nn.Linear(width, width)
        self.key_global = nn.Linear(width, width)
        self.value_global = nn.Linear(width, width)

    def forward(self, hidden: Tensor, metadata: AttentionMetadata) -> Tensor:
        """Returns the attended values of all heads; see `attend`."""
        return self.attend(hidden, metadata)

    def local_projections(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Returns queries, keys and values in one tensor, (batch, positions, 3, heads, head_dim)."""
        return (self.query_key_value(hidden).unflatten(-1, (3, self.heads, -1)),)
