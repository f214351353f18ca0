"""What a character language model is made of: plain numbers, checked when the object is made.

Nothing here imports torch or pydantic; the run file nests this dataclass and gets its checks for free.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

CHARACTER_MODEL_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 4, "hidden_size": 256, "heads": 4, "feedforward_size": 1024},
    "small": {"layers": 12, "hidden_size": 512, "heads": 8, "feedforward_size": 2048},
    "large": {"layers": 30, "hidden_size": 512, "heads": 8, "feedforward_size": 2048},
}
"""Shapes by name: `small` and `large` are the paper's (semantics.md 3.2), `tiny` learns on a CPU in minutes."""


@dataclass(frozen=True, kw_only=True)
class CharacterModelConfig:
    """Shape of a `CharacterLM`: layers of causal banded attention over single characters.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names the field.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    vocabulary_size: int
    """Number of different characters."""
    layers: int
    """Number of transformer layers."""
    hidden_size: int
    """Width of the residual stream."""
    heads: int
    """Attention heads per layer; must divide hidden_size."""
    feedforward_size: int
    """Inner width of the feed-forward part."""
    windows: tuple[int, ...]
    """Look-back of each layer, bottom to top, in units of its dilation: a position sees itself and this many earlier
    ones. No weight depends on it, so training phases may change it."""
    dilations: tuple[int, ...]
    """Dilation of each layer, bottom to top; 1 = none. The paper counts gaps: its 0 is our 1 (semantics.md 1.2)."""
    dilated_heads: int = 2
    """How many heads of a layer use its dilation (the last ones); the others look at every position."""
    position: Literal["transformer_xl", "rotary"] = "transformer_xl"
    """How attention knows distances: Transformer-XL relative sinusoids, as in the paper, or rotary."""
    dropout: float = 0.0
    """Dropout on embeddings, positions, both residual branches, the feed-forward inside and the last hidden state."""
    attention_dropout: float = 0.0
    """Dropout on attention probabilities."""
    activation_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again."""

    def __post_init__(self) -> None:
        # JSON and YAML know only lists; tuples keep the config hashable.
        object.__setattr__(self, "windows", tuple(self.windows))
        object.__setattr__(self, "dilations", tuple(self.dilations))
        for name in ("vocabulary_size", "layers", "hidden_size", "heads", "feedforward_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size must be an even multiple of heads, got hidden_size {self.hidden_size}, heads {self.heads}"
            )
        for name in ("windows", "dilations"):
            values = getattr(self, name)
            if len(values) != self.layers:
                raise ValueError(f"{name} must have one value per layer ({self.layers}), got {len(values)}")
            if min(values) < 1:
                raise ValueError(f"{name} must be at least 1, got {list(values)}")
        if not 0 <= self.dilated_heads <= self.heads:
            raise ValueError(f"dilated_heads must be from 0 to heads ({self.heads}), got {self.dilated_heads}")
        if self.position not in ("transformer_xl", "rotary"):
            raise ValueError(f"position must be transformer_xl or rotary, got {self.position!r}")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.heads

    def head_dilations(self, layer: int) -> tuple[int, ...]:
        """Returns the dilation of every head of a layer: first the undilated heads, then the dilated ones."""
        return (1,) * (self.heads - self.dilated_heads) + (self.dilations[layer],) * self.dilated_heads
