"""What a Longformer encoder is made of, under Hugging Face's names (spec 1.7): plain values, checked when made.

Windows are totals without the token itself, as in the paper and in Hugging Face; `band` turns them into sides.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from longformer.attention.band import Band

ACTIVATION_NAMES = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")


@dataclass(frozen=True, kw_only=True)
class LongformerConfig:
    """Shape of a Longformer model; the defaults are those of Hugging Face.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names the field.
    """

    attention_window: int | tuple[int, ...] = 512
    """How many neighbours a token sees, both sides together, even; one number or one per layer."""
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    """Inner width of the feed-forward part."""
    hidden_act: str = "gelu"
    """Activation of the feed-forward part, one of ACTIVATION_NAMES."""
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    """Rows of the position table; the first pad_token_id + 1 of them belong to no token."""
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int = 2
    sep_token_id: int = 2
    """Separates a question from its text; where no global mask is given, some heads derive one from it."""
    tie_word_embeddings: bool = True
    """Whether the masked-LM head uses the word embeddings as its output matrix."""
    num_labels: int = 2
    """Number of classes of a classification head."""
    problem_type: str | None = None
    """regression, single_label_classification or multi_label_classification; None: read off labels and num_labels."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """Keys of config.json that this class does not know; they are written back."""

    def __post_init__(self) -> None:
        windows = self.attention_window
        windows = (windows,) * self.num_hidden_layers if isinstance(windows, int) else tuple(windows)
        object.__setattr__(self, "attention_window", windows)
        if len(windows) != self.num_hidden_layers:
            raise ValueError(
                f"attention_window must be one number or one per layer ({self.num_hidden_layers}), got {len(windows)}"
            )
        for window in windows:
            if window <= 0 or window % 2:
                raise ValueError(f"attention_window must be even and positive, got {window}")
        if self.hidden_act not in ACTIVATION_NAMES:
            raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATION_NAMES)}, got {self.hidden_act!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} "
                f"and {self.num_attention_heads}"
            )

    @property
    def most_tokens(self) -> int:
        """The longest text that the position table serves, in tokens."""
        return self.max_position_embeddings - self.pad_token_id - 1

    def band(self, layer: int) -> Band:
        """Return what a token of a layer sees."""
        assert isinstance(self.attention_window, tuple)
        side = self.attention_window[layer] // 2
        return Band(side, side)

    def replaced(self, **changes: Any) -> Self:
        """Return the config with some fields changed.

        Raises:
            ValueError: a field does not exist, or its value is refused.
        """
        unknown = changes.keys() - {each.name for each in dataclasses.fields(self)}
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]} is not a field of {type(self).__name__}")
        return dataclasses.replace(self, **changes)
