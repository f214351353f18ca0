"""The two families of models, as they stand on disk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from longformer.interop.huggingface import BASE, LED_BASE, current_led_names, current_names
from longformer.models.led.config import LEDConfig
from longformer.models.longformer.config import LongformerConfig


@dataclass(frozen=True)
class Family:
    """What sets a family apart."""

    config: type[LongformerConfig] | type[LEDConfig]
    base: str
    """Stands before the names of the bare model's tensors in a model with a head."""
    current_names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Renames the tensors of any known layout to those of a Hugging Face model with a head."""
    tied: tuple[str, ...]
    """Tensors that are one where the config ties the word embeddings; the first is the one that is stored."""


LONGFORMER = Family(
    LongformerConfig,
    BASE,
    current_names,
    (f"{BASE}embeddings.word_embeddings.weight", "lm_head.decoder.weight"),
)
LED = Family(
    LEDConfig,
    LED_BASE,
    current_led_names,
    (
        f"{LED_BASE}shared.weight",
        f"{LED_BASE}encoder.embed_tokens.weight",
        f"{LED_BASE}decoder.embed_tokens.weight",
        "lm_head.weight",
    ),
)
