"""Claims: an LED's config goes in and out as Hugging Face reads it, and what is wrong is named."""

import dataclasses
from typing import Any

import pytest
import torch
import transformers

from longformer.errors import LongformerError
from longformer.interop.huggingface import config_class, config_from_json, config_to_json
from longformer.models import LEDConfig, LongformerConfig


def test_the_defaults_are_those_of_hugging_face() -> None:
    ours, theirs = LEDConfig(), transformers.LEDConfig()
    assert ours.attention_window == (theirs.attention_window,) * theirs.encoder_layers
    for field in dataclasses.fields(LEDConfig):
        if field.name not in ("attention_window", "other", *LEDConfig.extensions):
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name


def test_a_round_trip_keeps_every_key_even_unknown_ones() -> None:
    theirs = transformers.LEDConfig(
        d_model=48, encoder_layers=3, attention_window=[4, 8, 4], num_beams=4, id2label={0: "no", 1: "yes", 2: "maybe"}
    )
    config = config_from_json(theirs.to_dict(), LEDConfig)
    assert (config.d_model, config.attention_window, config.num_labels) == (48, (4, 8, 4), 3)
    values = config_to_json(config, architecture="LEDModel", dtype=torch.float32)
    again = transformers.LEDConfig.from_dict(values)
    expected = theirs.to_dict() | {"architectures": ["LEDModel"], "dtype": "float32"}
    assert again.to_dict() == expected


def test_second_names_count_where_the_first_is_absent_and_never_come_back() -> None:
    config = config_from_json({"model_type": "led", "hidden_size": 32, "d_model": 48, "init_std": 0.5}, LEDConfig)
    assert (config.d_model, config.init_std) == (48, 0.5)
    config = config_from_json({"model_type": "led", "hidden_size": 32, "initializer_range": 0.1}, LEDConfig)
    assert (config.d_model, config.init_std, config.other) == (32, 0.1, {})


def test_allenais_original_config_counts_one_side_of_the_window() -> None:
    values = {"model_type": "bart", "attention_mode": "sliding_chunks", "encoder_layers": 2, "attention_window": [4, 8]}
    assert config_class(values) is LEDConfig
    assert config_from_json(values, LEDConfig).attention_window == (8, 16)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"model_type": "longformer"}, LEDConfig, "family longformer, not led; .* of BART and mBART models"),
        ({"model_type": "led"}, LongformerConfig, "family led, not longformer; .* of RoBERTa, XLM-R, BERT and"),
        ({"model_type": "bart"}, LEDConfig, "family bart, not led"),
        ({}, LEDConfig, "family unknown"),
        ({"model_type": "led", "attention_window": [7] * 12}, LEDConfig, "attention_window must be even"),
        ({"model_type": "led", "attention_window": [8]}, LEDConfig, r"one per layer \(12\), got 1"),
        ({"model_type": "led", "decoder_attention_heads": 7}, LEDConfig, "multiple of decoder_attention_heads"),
        ({"model_type": "led", "activation_function": "sigmoid"}, LEDConfig, "activation_function must be one of"),
    ],
)
def test_other_families_and_impossible_values_are_named(values: dict[str, Any], kind: Any, message: str) -> None:
    with pytest.raises(LongformerError, match=message) as raised:
        config_from_json(values, kind)
    assert "\n" not in str(raised.value)
