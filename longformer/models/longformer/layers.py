"""The parts of a Longformer encoder, nested and named as in Hugging Face (spec 1.6): post-LayerNorm RoBERTa blocks."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.attention.layer import AttentionProbabilities, LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata
from longformer.cpu.dropout import Dropout
from longformer.cpu.linear import Linear
from longformer.cpu.residual import add_branch
from longformer.cpu.sublayers import Activation, Branch, FeedForward, Projection
from longformer.models.common.inputs import ModelInputs
from longformer.models.longformer.config import LongformerConfig

ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}


class Embeddings(nn.Module):
    """The sum of word, position and type embeddings, normalised."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        padding, width = config.pad_token_id, config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=padding)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, padding_idx=padding)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, inputs: ModelInputs) -> Tensor:
        """Return the first hidden states, (batch, positions, hidden_size), or packed where the batch is."""
        words = inputs.inputs_embeds if inputs.input_ids is None else self.word_embeddings(inputs.input_ids)
        places = self.position_embeddings(inputs.position_ids)
        types = self.token_type_embeddings(inputs.token_type_ids)
        return self.dropout(self.LayerNorm(inputs.tokens.pack(words + places + types)))


class AddAndNormalise(nn.Module):
    """Add the result of a branch, which ends with `dense`, to the hidden states, and normalise the sum."""

    def __init__(self, branch_width: int, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = Linear(branch_width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, branch: Branch, read: Tensor) -> Tensor:
        """Return the next hidden states."""
        return add_branch(hidden, branch, read, dropout=self.dropout, norm=self.LayerNorm)


class Attention(nn.Module):
    """Self-attention and what follows it."""

    def __init__(self, config: LongformerConfig, layer: int) -> None:
        super().__init__()
        self.self = LongformerSelfAttention(
            config.hidden_size,
            config.num_attention_heads,
            config.band(layer),
            dropout=config.attention_probs_dropout_prob,
        )
        self.output = AddAndNormalise(config.hidden_size, config)

    def forward(self, hidden: Tensor, tokens: AttentionMetadata, rows: Tensor | None) -> Tensor:
        """Return the next hidden states; `rows` as in `Layer.forward`."""
        attended = self.self(hidden, tokens)
        if rows is not None:
            attended, hidden = (each.flatten(0, -2).index_select(0, rows) for each in (attended, hidden))
        return self.output(hidden, Projection(self.output.dense), attended)


class Intermediate(nn.Module):
    """The widening half of the feed-forward part."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)


class Layer(nn.Module):
    """One layer of the encoder."""

    def __init__(self, config: LongformerConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.intermediate = Intermediate(config)
        self.output = AddAndNormalise(config.intermediate_size, config)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(
        self, hidden: Tensor, tokens: AttentionMetadata, rows: Tensor | None = None, *, keeps_inside: bool = False
    ) -> Tensor:
        """Return the next hidden states, in the layout of `hidden`, or only some rows of them.

        Args:
            hidden: (batch, positions, width), or packed, (rows, width).
            tokens: what the positions hold.
            rows: (count,) long, counted through the batch where it is not packed: all that is wanted. The rest is
                not computed; the result is (count, width).
            keeps_inside: as in `FeedForward`.
        """
        hidden = self.attention(hidden, tokens, rows)
        layers = self.intermediate.dense, self.output.dense
        branch = FeedForward(*layers, self.activation, keeps_inside=keeps_inside)
        return self.output(hidden, branch, hidden)

    def probabilities(self, hidden: Tensor, tokens: AttentionMetadata) -> AttentionProbabilities:
        """Return who attends to whom in this layer, given its input."""
        return self.attention.self.probabilities(hidden, tokens)


class Pooler(nn.Module):
    """One vector for a whole text, made of its first token."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (batch, hidden_size)."""
        return torch.tanh(self.dense(hidden[:, 0]))
