"""The parts of an LED, nested and named as in Hugging Face (spec 1.6): BART blocks, which normalise what they give.

On request they are mBART's, which normalise what they read.
"""

import math
from typing import NamedTuple

from torch import Tensor, nn

from longformer.attention.layer import AttentionProbabilities, LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata
from longformer.cpu.dropout import Dropout
from longformer.cpu.linear import Linear
from longformer.cpu.residual import add_branch
from longformer.cpu.sublayers import Branch, FeedForward, Projection
from longformer.models.led.attention import CrossAttention, DecoderSelfAttention, KeyValue
from longformer.models.led.config import LEDConfig
from longformer.models.longformer.layers import ACTIVATIONS


class WordEmbeddings(nn.Embedding):
    """The embeddings of tokens, scaled where the config says so."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else None

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., d_model)."""
        words = super().forward(ids)
        return words if self.scale is None else words * self.scale


class FeedForwardLayer(nn.Module):
    """What encoder and decoder layers share: where they normalise, and the feed-forward part that ends them."""

    def __init__(self, config: LEDConfig, inner_width: int) -> None:
        super().__init__()
        self.normalizes_before = config.normalize_before
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = Linear(config.d_model, inner_width)
        self.fc2 = Linear(inner_width, config.d_model)
        self.activation = ACTIVATIONS[config.activation_function]
        self.activation_dropout = config.activation_dropout
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)

    def feed_forward(self, hidden: Tensor, *, keeps_inside: bool = False) -> Tensor:
        """Return the layer's result; `keeps_inside` as in `FeedForward`."""
        dropout = self.activation_dropout if self.training else 0.0
        branch = FeedForward(self.fc1, self.fc2, self.activation, dropout=dropout, keeps_inside=keeps_inside)
        return self.add(hidden, branch, self.before(self.final_layer_norm, hidden), self.final_layer_norm)

    def before(self, norm: nn.Module, hidden: Tensor) -> Tensor:
        """Return what a branch reads of the hidden states."""
        return norm(hidden) if self.normalizes_before else hidden

    def add(self, hidden: Tensor, branch: Branch, read: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Return the hidden states once a branch has been added to them."""
        return add_branch(hidden, branch, read, dropout=self.dropout, norm=None if self.normalizes_before else norm)


class EncoderAttention(nn.Module):
    """Banded self-attention with global tokens, and its output projection."""

    def __init__(self, config: LEDConfig, layer: int) -> None:
        super().__init__()
        self.longformer_self_attn = LongformerSelfAttention(
            config.d_model, config.encoder_attention_heads, config.band(layer), dropout=config.attention_dropout
        )
        self.output = Linear(config.d_model, config.d_model)


class LEDEncoderLayer(FeedForwardLayer):
    """One layer of the encoder."""

    def __init__(self, config: LEDConfig, layer: int) -> None:
        super().__init__(config, config.encoder_ffn_dim)
        self.self_attn = EncoderAttention(config, layer)

    def forward(self, hidden: Tensor, tokens: AttentionMetadata, *, keeps_inside: bool = False) -> Tensor:
        """Return the next hidden states, in the layout of `hidden`; `keeps_inside` as in `FeedForward`."""
        attended = self.self_attn.longformer_self_attn(self.before(self.self_attn_layer_norm, hidden), tokens)
        hidden = self.add(hidden, Projection(self.self_attn.output), attended, self.self_attn_layer_norm)
        return self.feed_forward(hidden, keeps_inside=keeps_inside)

    def probabilities(self, hidden: Tensor, tokens: AttentionMetadata) -> AttentionProbabilities:
        """Return who attends to whom in this layer, given its input."""
        read = self.before(self.self_attn_layer_norm, hidden)
        return self.self_attn.longformer_self_attn.probabilities(read, tokens)


class DecoderView(NamedTuple):
    """What the tokens of a decoder call may see, the same in all layers."""

    target: Tensor | None
    """As `visible` of `DecoderSelfAttention.forward`."""
    causal: bool
    """As in `DecoderSelfAttention.forward`."""
    source: Tensor | None
    """As `visible` of `CrossAttention.forward`."""


class DecoderStep(NamedTuple):
    """What a decoder layer makes of its input."""

    hidden: Tensor
    """(rows, positions, width): the next hidden states."""
    known: KeyValue
    """What the tokens so far offer to later ones."""
    attentions: tuple[Tensor, Tensor] | None
    """On request, without dropout: (rows, heads, positions, known positions) and (rows, heads, positions, source
    positions)."""


class LEDDecoderLayer(FeedForwardLayer):
    """One layer of the decoder."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config, config.decoder_ffn_dim)
        width, heads, dropout = config.d_model, config.decoder_attention_heads, config.attention_dropout
        self.self_attn = DecoderSelfAttention(width, heads, dropout=dropout)
        self.encoder_attn = CrossAttention(width, heads, dropout=dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, view: DecoderView, states: Tensor) -> Tensor:
        """Return the next hidden states of whole texts, (rows, positions, width).

        Args:
            hidden: (rows, positions, width).
            view: what they may see.
            states: of the encoder, (rows, source positions, width).
        """
        return self.step(hidden, view, self.encoder_attn.read(states), None, output_attentions=False).hidden

    def step(
        self, hidden: Tensor, view: DecoderView, source: KeyValue, past: KeyValue | None, *, output_attentions: bool
    ) -> DecoderStep:
        """Continue texts.

        Args:
            hidden: (rows, positions, width); the rows of a document follow each other, as many for each.
            view: what they may see.
            source: what the encoder offers, a row for each document.
            past: what earlier tokens offer; None: there are none.
        """
        query, known = self.self_attn.project(self.before(self.self_attn_layer_norm, hidden))
        known = known if past is None else past.followed_by(known)
        attended = self.self_attn(query, known, view.target, causal=view.causal)
        hidden = self.add(hidden, Projection(self.self_attn.out_proj), attended, self.self_attn_layer_norm)
        asking = self.before(self.encoder_attn_layer_norm, hidden)
        attentions = None
        if output_attentions:
            attentions = (
                self.self_attn.probabilities(query, known, view.target, causal=view.causal),
                self.encoder_attn.probabilities(asking, source, view.source),
            )
        attended = self.encoder_attn(asking, source, view.source)
        hidden = self.add(hidden, Projection(self.encoder_attn.out_proj), attended, self.encoder_attn_layer_norm)
        return DecoderStep(self.feed_forward(hidden), known, attentions)
