"""What an LED encoder-decoder is made of, under Hugging Face's names (semantics.md 1.6): values checked when made."""

from dataclasses import dataclass
from typing import ClassVar

from longformer.models.common.config import WindowedConfig


@dataclass(kw_only=True)
class LEDConfig(WindowedConfig):
    """Shape of an LED model; the defaults are those of Hugging Face.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names the field.
    """

    family: ClassVar[str] = "led"
    extended_family: ClassVar[str | None] = "longformer-led"
    extensions: ClassVar[tuple[str, ...]] = ("normalize_before", "scale_embedding")

    vocab_size: int = 50265
    d_model: int = 1024
    """Size of a hidden state."""
    encoder_layers: int = 12
    encoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    """Inner width of the feed-forward part of an encoder layer."""
    encoder_layerdrop: float = 0.0
    """Probability of leaving out an encoder layer while training (arXiv 1909.11556)."""
    decoder_layers: int = 12
    decoder_attention_heads: int = 16
    decoder_ffn_dim: int = 4096
    decoder_layerdrop: float = 0.0
    activation_function: str = "gelu"
    """Activation of the feed-forward parts, one of ACTIVATION_NAMES."""
    dropout: float = 0.1
    attention_dropout: float = 0.0
    """Probability of dropping an attention probability, in encoder and decoder."""
    activation_dropout: float = 0.0
    """Dropout inside the feed-forward parts."""
    max_encoder_position_embeddings: int = 16384
    """The longest text that the encoder reads, in tokens."""
    max_decoder_position_embeddings: int = 1024
    """The longest text that the decoder writes, in tokens."""
    init_std: float = 0.02
    decoder_start_token_id: int = 2
    """What the decoder reads first."""
    normalize_before: bool = False
    """Whether layers normalise what they read instead of what they give, and the two stacks their results, as in
    mBART; Hugging Face's LED cannot."""
    scale_embedding: bool = False
    """Whether word embeddings are multiplied by the square root of d_model, as in mBART; Hugging Face's LED cannot."""

    def __post_init__(self) -> None:
        self.set_windows(self.encoder_layers)
        self.check_activation("activation_function")
        self.check_multiple("d_model", "encoder_attention_heads")
        self.check_multiple("d_model", "decoder_attention_heads")

    @property
    def initial_deviation(self) -> float:
        """Standard deviation of fresh weights."""
        return self.init_std
