"""Claims: weights are ordered from the embeddings to the heads, and frozen lower layers change no other gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch

from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM
from longformer.models.common.layer_order import freeze_lower_layers, layer_heights
from tests.models.led_cases import make_led_case
from tests.models.longformer_cases import make_case


def model_and_loss(kind: str, folder: Path) -> tuple[Any, Any]:
    """Return a model of three layers, of an LED's two and one, and what computes its loss."""
    if kind == "CharacterLM":
        torch.manual_seed(0)
        shape = {"layers": 3, "hidden_size": 16, "heads": 2, "feedforward_size": 24, "dilated_heads": 0}
        config = CharacterModelConfig(**shape, windows=(4, 4, 4), vocabulary_size=9, dilations=(1, 1, 1))
        characters = CharacterLM(config)
        return characters, lambda: characters(torch.arange(18).view(2, 9) % 9).square().mean()
    if kind.startswith("LED"):
        case = make_led_case(kind, 3, folder, encoder_layers=2, decoder_layers=1, attention_window=[8, 8])
    else:
        case = make_case(kind, 3, folder, num_hidden_layers=3, attention_window=[8, 8, 8])
    return case.ours.train(), lambda: case.ours(**case.batch).loss


KINDS = ["LongformerForMaskedLM", "LongformerForSequenceClassification", "LEDForConditionalGeneration", "CharacterLM"]


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_layers_have_no_gradient_and_all_others_the_same(kind: str, tmp_path: Path) -> None:
    model, loss = model_and_loss(kind, tmp_path)
    heights = layer_heights(model)
    # Above an LED nothing has weights of its own.
    assert set(heights.values()) == set(range(4 if kind.startswith("LED") else 5))
    loss().backward()
    whole = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    freeze_lower_layers(model, 2)
    loss().backward()
    for name, parameter in model.named_parameters():
        if heights[name] <= 2:
            assert parameter.grad is None, name
        elif whole[name] is not None:
            torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-5, atol=1e-7, msg=name)


def test_an_led_is_ordered_from_its_embeddings_over_encoder_and_decoder_to_what_is_above(tmp_path: Path) -> None:
    model, _ = model_and_loss("LEDForConditionalGeneration", tmp_path)
    heights = layer_heights(model)
    for name, height in {
        "led.shared.weight": 0,
        "led.decoder.embed_positions.weight": 0,
        "led.decoder.layernorm_embedding.bias": 0,
        "led.encoder.layers.0.fc1.weight": 1,
        "led.encoder.layers.1.self_attn.output.weight": 2,
        "led.decoder.layers.0.encoder_attn.q_proj.weight": 3,
    }.items():
        assert heights[name] == height, name


def test_more_layers_than_there_are_cannot_be_frozen(tmp_path: Path) -> None:
    model, _ = model_and_loss("LongformerForMaskedLM", tmp_path)
    freeze_lower_layers(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="4 layers are to be frozen, but the model has 3"):
        freeze_lower_layers(model, 4)
