"""The parts of a Longformer encoder, named as in Hugging Face (semantics.md 1.5): post-LayerNorm RoBERTa blocks."""

import torch
from torch import Tensor, nn

from longformer.attention.layer import AttentionProbabilities, LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata
from longformer.models.common.inputs import ModelInputs
from longformer.models.common.layers import ACTIVATIONS, FeedForward, add_and_norm
from longformer.models.longformer.config import LongformerConfig
from longformer.models.longformer.global_attention import first_positions


class Embeddings(nn.Module):
    """The sum of word, position and type embeddings, normalised."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        padding, width = config.pad_token_id, config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=padding)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, padding_idx=padding)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inputs: ModelInputs) -> Tensor:
        """Returns the first hidden states, (batch, positions, hidden_size), or packed where the batch is."""
        words = inputs.inputs_embeds if inputs.input_ids is None else self.word_embeddings(inputs.input_ids)
        positions = self.position_embeddings(inputs.position_ids)
        types = self.token_type_embeddings(inputs.token_type_ids)
        return self.dropout(self.LayerNorm(inputs.tokens.pack(words + positions + types)))


class AddAndNorm(nn.Module):
    """Adds the output of a sublayer, whose last linear layer is `dense`, to the residual and normalises the sum."""

    def __init__(self, in_features: int, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, residual: Tensor, sublayer: nn.Linear | FeedForward, x: Tensor) -> Tensor:
        """Returns LayerNorm(residual + dropout(sublayer(x))), (..., hidden_size)."""
        return add_and_norm(residual, sublayer, x, dropout=self.dropout, norm=self.LayerNorm)


class Attention(nn.Module):
    """Self-attention, and what adds it to the hidden states."""

    def __init__(self, config: LongformerConfig, layer: int) -> None:
        super().__init__()
        self.self = LongformerSelfAttention(
            config.hidden_size,
            config.num_attention_heads,
            config.band(layer),
            dropout=config.attention_probs_dropout_prob,
        )
        self.output = AddAndNorm(config.hidden_size, config)


class Intermediate(nn.Module):
    """The first half of the feed-forward part."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)


class Layer(nn.Module):
    """One layer of the encoder."""

    def __init__(self, config: LongformerConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.intermediate = Intermediate(config)
        self.output = AddAndNorm(config.intermediate_size, config)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden: Tensor, tokens: AttentionMetadata, positions: Tensor | None = None) -> Tensor:
        """Returns the next hidden states, in the layout of `hidden`, or those of some positions only.

        Args:
            hidden: (batch, positions, width), or packed, (tokens, width).
            tokens: what the positions hold.
            positions: (count,) long, counted through the batch where it is not packed: the rest is not computed, and
                the result is (count, width).
        """
        attended = self.attention.self(hidden, tokens)
        if positions is not None:
            hidden, attended = (each.flatten(0, -2).index_select(0, positions) for each in (hidden, attended))
        hidden = self.attention.output(hidden, self.attention.output.dense, attended)
        feed_forward = FeedForward(self.intermediate.dense, self.activation, self.output.dense)
        return self.output(hidden, feed_forward, hidden)

    def probabilities(self, hidden: Tensor, tokens: AttentionMetadata) -> AttentionProbabilities:
        """Returns who attends to whom in this layer, given its input."""
        return self.attention.self.probabilities(hidden, tokens)


def of_first_token(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Returns what the first token of every text holds, (batch, width), on whichever side its padding is.

    Args:
        hidden: (batch, positions, width).
        attention_mask: (batch, positions), 0 = padding; None = all tokens.
    """
    if attention_mask is None:
        return hidden[:, 0]
    first = first_positions(attention_mask)
    return hidden.gather(1, first[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)


class Pooler(nn.Module):
    """One vector for a whole text, made of its first token."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns (batch, hidden_size); arguments as in `of_first_token`."""
        return torch.tanh(self.dense(of_first_token(hidden, attention_mask)))
