"""What a Longformer encoder is made of, under Hugging Face's names (semantics.md 1.6): values checked when made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from longformer.models.common.config import WindowedConfig


@dataclass(kw_only=True)
class LongformerConfig(WindowedConfig):
    """Shape of a Longformer model; the defaults are those of Hugging Face.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names the field.
    """

    family: ClassVar[str] = "longformer"

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
    sep_token_id: int = 2
    """Separates a question from its text; where no global mask is given, some heads derive one from it."""
    problem_type: str | None = None
    """regression, single_label_classification or multi_label_classification; None: read off labels and num_labels."""
    coreference: Mapping[str, Any] | None = None
    """Shape of a head that finds coreference (`CoreferenceConfig`); None: as it is by default, or there is none."""

    def __post_init__(self) -> None:
        self.set_windows(self.num_hidden_layers)
        self.check_activation("hidden_act")
        self.check_multiple("hidden_size", "num_attention_heads")

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if name != "coreference" or value is not None}

    @property
    def initial_deviation(self) -> float:
        """Standard deviation of fresh weights."""
        return self.initializer_range

    @property
    def max_tokens(self) -> int:
        """The longest text that the position table serves, in tokens."""
        return self.max_position_embeddings - self.pad_token_id - 1
