"""The layers of an LED, nested and named as in Hugging Face (spec 1.6): post-LayerNorm BART blocks."""

from typing import NamedTuple

from torch import Tensor, nn

from longformer.attention.layer import AttentionProbabilities, LongformerSelfAttention
from longformer.attention.tokens import Tokens
from longformer.models.layers import ACTIVATIONS
from longformer.models.led_attention import CrossAttention, DecoderSelfAttention, KeyValue
from longformer.models.led_config import LEDConfig


class FeedForwardLayer(nn.Module):
    """What encoder and decoder layers share: the feed-forward part that ends them."""

    def __init__(self, config: LEDConfig, inner_width: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, inner_width)
        self.fc2 = nn.Linear(inner_width, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.activation = ACTIVATIONS[config.activation_function]
        self.inner_dropout = nn.Dropout(config.activation_dropout)
        self.dropout = nn.Dropout(config.dropout)

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """Return the layer's result."""
        inner = self.inner_dropout(self.activation(self.fc1(hidden)))
        return self.final_layer_norm(hidden + self.dropout(self.fc2(inner)))


class EncoderAttention(nn.Module):
    """Banded self-attention with global tokens, and its output projection."""

    def __init__(self, config: LEDConfig, layer: int) -> None:
        super().__init__()
        self.longformer_self_attn = LongformerSelfAttention(
            config.d_model, config.encoder_attention_heads, config.band(layer), dropout=config.attention_dropout
        )
        self.output = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Return what the tokens gather, in the layout of `hidden`."""
        return self.output(self.longformer_self_attn(hidden, tokens))


class LEDEncoderLayer(FeedForwardLayer):
    """One layer of the encoder."""

    def __init__(self, config: LEDConfig, layer: int) -> None:
        super().__init__(config, config.encoder_ffn_dim)
        self.self_attn = EncoderAttention(config, layer)

    def forward(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Return the next hidden states, in the layout of `hidden`."""
        hidden = self.self_attn_layer_norm(hidden + self.dropout(self.self_attn(hidden, tokens)))
        return self.feed_forward(hidden)

    def probabilities(self, hidden: Tensor, tokens: Tokens) -> AttentionProbabilities:
        """Return who attends to whom in this layer, given its input."""
        return self.self_attn.longformer_self_attn.probabilities(hidden, tokens)


class DecoderView(NamedTuple):
    """What the tokens of a decoder call may see, the same in all layers; both parts are None where they see all."""

    target: Tensor | None
    """As `visible` of `DecoderSelfAttention.forward`."""
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
        query, known = self.self_attn.project(hidden)
        known = known if past is None else past.followed_by(known)
        hidden = self.self_attn_layer_norm(hidden + self.dropout(self.self_attn(query, known, view.target)))
        attentions = None
        if output_attentions:
            attentions = (
                self.self_attn.probabilities(query, known, view.target),
                self.encoder_attn.probabilities(hidden, source, view.source),
            )
        gathered = self.encoder_attn(hidden, source, view.source)
        hidden = self.encoder_attn_layer_norm(hidden + self.dropout(gathered))
        return DecoderStep(self.feed_forward(hidden), known, attentions)
