"""The parts of an LED, nested and named as in Hugging Face (semantics.md 1.5): BART blocks, which normalise what they
give.

On request they are mBART's, which normalise what they read.
"""

import math
from typing import NamedTuple

from torch import Tensor, nn

from longformer.attention.layer import AttentionProbabilities, LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata
from longformer.models.common.layers import ACTIVATIONS, FeedForward, add_and_norm
from longformer.models.led.attention import CrossAttention, DecoderSelfAttention, KeyValue
from longformer.models.led.config import LEDConfig


class WordEmbeddings(nn.Embedding):
    """The embeddings of tokens, scaled where the config says so."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else None

    def forward(self, ids: Tensor) -> Tensor:
        """Returns (..., d_model)."""
        words = super().forward(ids)
        return words if self.scale is None else words * self.scale


class LEDLayer(nn.Module):
    """What encoder and decoder layers share: where they normalise, and the feed-forward part that ends them."""

    def __init__(self, config: LEDConfig, inner_width: int) -> None:
        super().__init__()
        self.normalize_before = config.normalize_before
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, inner_width)
        self.fc2 = nn.Linear(inner_width, config.d_model)
        self.activation = ACTIVATIONS[config.activation_function]
        self.activation_dropout = config.activation_dropout
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def norm_before(self, hidden: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Returns the input of a sublayer: the hidden states, normalised where the config says so (mBART)."""
        return norm(hidden) if self.normalize_before else hidden

    def add_and_norm(
        self, residual: Tensor, sublayer: nn.Linear | FeedForward, x: Tensor, norm: nn.LayerNorm
    ) -> Tensor:
        """Returns norm(residual + dropout(sublayer(x))), or the sum alone where `norm_before` normalises."""
        norm_after = None if self.normalize_before else norm
        return add_and_norm(residual, sublayer, x, dropout=self.dropout, norm=norm_after)

    @property
    def feed_forward(self) -> FeedForward:
        """The feed-forward part."""
        dropout = self.activation_dropout if self.training else 0.0
        return FeedForward(self.fc1, self.activation, self.fc2, dropout=dropout)


class EncoderAttention(nn.Module):
    """Banded self-attention with global tokens, and its output projection."""

    def __init__(self, config: LEDConfig, layer: int) -> None:
        super().__init__()
        self.longformer_self_attn = LongformerSelfAttention(
            config.d_model, config.encoder_attention_heads, config.band(layer), dropout=config.attention_dropout
        )
        self.output = nn.Linear(config.d_model, config.d_model)


class LEDEncoderLayer(LEDLayer):
    """One layer of the encoder."""

    def __init__(self, config: LEDConfig, layer: int) -> None:
        super().__init__(config, config.encoder_ffn_dim)
        self.self_attn = EncoderAttention(config, layer)

    def forward(self, hidden: Tensor, tokens: AttentionMetadata) -> Tensor:
        """Returns the next hidden states, in the layout of `hidden`."""
        x = self.norm_before(hidden, self.self_attn_layer_norm)
        attended = self.self_attn.longformer_self_attn(x, tokens)
        hidden = self.add_and_norm(hidden, self.self_attn.output, attended, self.self_attn_layer_norm)
        x = self.norm_before(hidden, self.final_layer_norm)
        return self.add_and_norm(hidden, self.feed_forward, x, self.final_layer_norm)

    def probabilities(self, hidden: Tensor, tokens: AttentionMetadata) -> AttentionProbabilities:
        """Returns who attends to whom in this layer, given its input."""
        x = self.norm_before(hidden, self.self_attn_layer_norm)
        return self.self_attn.longformer_self_attn.probabilities(x, tokens)


class DecoderMasks(NamedTuple):
    """What the tokens of a decoder call may see, the same in all layers."""

    target: Tensor | None
    """As `visible` of `DecoderSelfAttention.forward`."""
    causal: bool
    """As in `DecoderSelfAttention.forward`."""
    source: Tensor | None
    """As `visible` of `CrossAttention.forward`."""


class LEDDecoderLayer(LEDLayer):
    """One layer of the decoder."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config, config.decoder_ffn_dim)
        width, heads, dropout = config.d_model, config.decoder_attention_heads, config.attention_dropout
        self.self_attn = DecoderSelfAttention(width, heads, dropout=dropout)
        self.encoder_attn = CrossAttention(width, heads, dropout=dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(
        self, hidden: Tensor, masks: DecoderMasks, source: Tensor | KeyValue, past: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        """Returns the next hidden states, (sequences, positions, width), and the keys and values of all tokens so far.

        Args:
            hidden: (sequences, positions, width); the sequences of a document follow each other, as many for each.
            masks: what the tokens may see.
            source: the states of the encoder, (documents, source positions, width), or their keys and values.
            past: keys and values of earlier tokens; None: there are none.
        """
        x = self.norm_before(hidden, self.self_attn_layer_norm)
        attended, known = self.self_attn(x, past, masks.target, causal=masks.causal)
        hidden = self.add_and_norm(hidden, self.self_attn.out_proj, attended, self.self_attn_layer_norm)
        x = self.norm_before(hidden, self.encoder_attn_layer_norm)
        attended = self.encoder_attn(x, source, masks.source)
        hidden = self.add_and_norm(hidden, self.encoder_attn.out_proj, attended, self.encoder_attn_layer_norm)
        x = self.norm_before(hidden, self.final_layer_norm)
        return self.add_and_norm(hidden, self.feed_forward, x, self.final_layer_norm), known

    def probabilities(
        self, hidden: Tensor, masks: DecoderMasks, source: Tensor | KeyValue, past: KeyValue | None
    ) -> tuple[Tensor, Tensor]:
        """Returns who attends to whom in this layer, given its input: to target and source; arguments as in `forward`.

        Returns:
            (sequences, heads, positions, known positions) and (sequences, heads, positions, source positions).
        """
        x = self.norm_before(hidden, self.self_attn_layer_norm)
        of_target = self.self_attn.probabilities(x, past, masks.target, causal=masks.causal)
        attended, _ = self.self_attn(x, past, masks.target, causal=masks.causal)
        hidden = self.add_and_norm(hidden, self.self_attn.out_proj, attended, self.self_attn_layer_norm)
        x = self.norm_before(hidden, self.encoder_attn_layer_norm)
        return of_target, self.encoder_attn.probabilities(x, source, masks.source)
