"""The shape of the long model of a run, from its source or, while that is not there, from a published one."""

from typing import Any

from launcher.tasks.long_source import source_settings
from launcher.tasks.masked_lm.config import LongModelSection, Published
from longformer.interop.convert_encoder import FAMILIES, long_config, source_length
from longformer.models.longformer.config import LongformerConfig

_ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 50_265,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "max_position_embeddings": 514,
}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
PUBLISHED: dict[Published, dict[str, Any]] = {
    "roberta-base": _ROBERTA | _BASE,
    "roberta-large": _ROBERTA
    | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "longformer-base-4096": _ROBERTA
    | _BASE
    | {"model_type": "longformer", "max_position_embeddings": 4098, "attention_window": [512] * 12, "sep_token_id": 2},
}
"""Shapes of published models, as their config.json has them."""


def long_model(section: LongModelSection) -> LongformerConfig:
    """Return the config of the model that the source becomes.

    Raises:
        LongformerError: the source is missing, or not an encoder that can be converted.
    """
    settings = _source_settings(section)
    return long_config(settings, section.source, max_length=section.max_length, window=section.window)


def new_rows(section: LongModelSection) -> int:
    """Return how many positions the source does not have."""
    return section.max_length - source_length(_source_settings(section))


def _source_settings(section: LongModelSection) -> dict[str, Any]:
    stand_in = PUBLISHED[section.published] if section.published is not None else None
    return source_settings(section.source, stand_in=stand_in, families=FAMILIES)
