"""The Longformer paper's character language model: causal dilated bands, no memory, no padding, any length."""

import math
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longformer.models.char_lm import storage
from longformer.models.char_lm.attention import CausalSelfAttention
from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.positions import rotary_rotations

_EMBEDDING_DEVIATION = 0.02


class Layer(nn.Module):
    """One pre-LayerNorm transformer layer: banded self-attention, then a GELU feed-forward part."""

    def __init__(self, config: CharacterModelConfig, layer: int, *, attention_backend: str) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.attention = CausalSelfAttention(config, layer, backend=attention_backend)
        self.feedforward_norm = nn.LayerNorm(config.hidden_size)
        self.expand = nn.Linear(config.hidden_size, config.feedforward_size)
        self.contract = nn.Linear(config.feedforward_size, config.hidden_size)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, positions: tuple[Tensor, ...]) -> Tensor:
        """Returns the next hidden states, (batch, positions, hidden_size)."""
        return self.finish(hidden, self.attention(self.attention_norm(hidden), positions))

    def finish(self, hidden: Tensor, attention_output: Tensor) -> Tensor:
        """Adds the attention's result to the layer's input and runs the feed-forward part."""
        hidden = hidden + self.dropout(attention_output)
        inner = self.dropout(self.activation(self.expand(self.feedforward_norm(hidden))))
        return hidden + self.dropout(self.contract(inner))


class CharacterLM(nn.Module):
    """Predicts every next character of a text (semantics.md 3.2; dropout where Transformer-XL has it).

    Input and output embedding are one matrix. A last LayerNorm stands before the output: without it a pre-LayerNorm
    stack would hand over sums of any size. Projections start from a normal distribution of deviation
    1 / sqrt(hidden_size), those that add to the residual stream from that / sqrt(2 * layers); embeddings from 0.02,
    biases from zero. Measured on a small model: 0.02 everywhere learns slower from the first steps on.

    Args:
        config: the model's shape; windows may change between phases of training, no weight depends on them.
        attention_backend: engine of `banded_attention`.
    """

    def __init__(self, config: CharacterModelConfig, *, attention_backend: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config, layer, attention_backend=attention_backend) for layer in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.vocabulary_size)
        self.output.weight = self.embedding.weight
        self.dropout = nn.Dropout(config.dropout)
        if config.position == "transformer_xl":
            self.content_bias = nn.Parameter(torch.empty(config.heads, config.head_size))
            self.distance_bias = nn.Parameter(torch.empty(config.heads, config.head_size))
        self._initialise()

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits of the character after each position.

        Args:
            tokens: (batch, positions) long, below vocabulary_size.

        Returns:
            (batch, positions, vocabulary_size) in the dtype of the weights.
        """
        positions = self.shared_positions(torch.arange(tokens.shape[1], device=tokens.device))
        hidden = self.embed(tokens)
        for layer in self.layers:
            if self.config.activation_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, positions, use_reentrant=False)
            else:
                hidden = layer(hidden, positions)
        return self.predict(hidden)

    def embed(self, tokens: Tensor) -> Tensor:
        """Returns the first hidden states; scaled, because the matrix is also the output's (as in Transformer-XL)."""
        return self.dropout(self.embedding(tokens) * math.sqrt(self.config.hidden_size))

    def predict(self, hidden: Tensor) -> Tensor:
        """Returns logits from the last layer's hidden states."""
        return self.output(self.dropout(self.final_norm(hidden)))

    def shared_positions(self, positions: Tensor) -> tuple[Tensor, ...]:
        """Returns what every layer needs to know of positions: rotations, or the two biases of transformer_xl."""
        if self.config.position == "rotary":
            return (rotary_rotations(positions, self.config.head_size),)
        return (self.content_bias, self.distance_bias)

    def save_pretrained(self, directory: Path | str) -> None:
        """Writes config.json and model.safetensors into a new directory, which appears whole or not at all.

        Raises:
            LongformerError: the directory exists already.
            OSError: it cannot be written.
        """
        storage.save(Path(directory), self.config, dict(self.named_parameters()))

    @classmethod
    def from_pretrained(cls, directory: Path | str, *, attention_backend: str = "auto") -> Self:
        """Returns the saved model in float32, ready to read (not in training mode).

        Raises:
            LongformerError: a file is missing or damaged, or the tensors do not fit the config.
        """
        model = cls(storage.load_config(Path(directory), CharacterModelConfig), attention_backend=attention_backend)
        model.load_weights(directory)
        return model.eval()

    def load_weights(self, directory: Path | str) -> None:
        """Takes over the weights of a saved model, whatever its windows were; shapes and names must agree exactly.

        Raises:
            LongformerError: the file is missing or damaged, or names or shapes differ.
        """
        storage.load_weights(Path(directory), dict(self.named_parameters()))

    def _initialise(self) -> None:
        deviation = 1 / math.sqrt(self.config.hidden_size)
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif name == "embedding.weight":
                nn.init.normal_(parameter, std=_EMBEDDING_DEVIATION)
            elif name.endswith(("attention.output.weight", "contract.weight")):
                nn.init.normal_(parameter, std=deviation / math.sqrt(2 * self.config.layers))
            else:
                nn.init.normal_(parameter, std=deviation)
