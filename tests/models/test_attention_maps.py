"""Attention maps are the probabilities that the models use: they add up, stay in the band, and reproduce attention."""

from typing import Any

import pytest
import torch

from longformer import models
from longformer.inference.attention_maps import character_attention, encoder_attention, first_token_attention
from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM


@pytest.mark.parametrize("position", ["rotary", "transformer_xl"])
def test_a_character_model_looks_back_in_its_band_and_with_its_dilation(position: Any) -> None:
    config = CharacterModelConfig(
        vocabulary_size=20, layers=2, hidden_size=32, heads=4, feedforward_size=16, windows=(3, 5), dilations=(1, 2),
        dilated_heads=1, position=position,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CharacterLM(config).eval()
    maps = character_attention(model, torch.randint(0, 20, (30,)))
    assert [each.shape for each in maps] == [(4, 30, 30)] * 2
    distance = torch.arange(30)[:, None] - torch.arange(30)
    for layer, each in enumerate(maps):
        assert torch.allclose(each.sum(-1), torch.ones(4, 30), atol=1e-5)
        for head, dilation in enumerate(config.head_dilations(layer)):
            steps = distance / dilation
            visible = (steps >= 0) & (steps <= config.windows[layer]) & (distance % dilation == 0)
            assert bool((each[head][visible] > 0).all())
            assert bool((each[head][~visible] == 0).all())


def test_a_map_times_the_values_is_what_attention_gives() -> None:
    config = CharacterModelConfig(
        vocabulary_size=20, layers=1, hidden_size=32, heads=4, feedforward_size=16, windows=(5,), dilations=(2,)
    )
    torch.manual_seed(0)
    model = CharacterLM(config).eval()
    tokens = torch.randint(0, 20, (25,))
    layer = model.layers[0]
    positions = model.shared_positions(torch.arange(25))
    projections = layer.attention.project(layer.attention_norm(model.embed(tokens[None])), positions)
    expected = layer.attention.attend(projections)[0]
    (dense,) = character_attention(model, tokens)
    assert torch.allclose(torch.einsum("hij,jhd->ihd", dense, projections.value[0]), expected, atol=1e-5)


@pytest.mark.parametrize("places", [(), (0,), (0, 7)])
@pytest.mark.parametrize("family", ["longformer", "led"])
def test_an_encoder_looks_around_and_its_global_tokens_everywhere(family: str, places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    if family == "led":
        sizes = {"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        encoder: Any = models.LEDModel(
            models.LEDConfig(vocab_size=50, d_model=16, attention_window=6, **sizes, **heads)
        ).encoder
    else:
        encoder = models.LongformerModel(
            models.LongformerConfig(
                vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                attention_window=6, max_position_embeddings=66,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
    mask = torch.zeros(24, dtype=torch.long)
    mask[list(places)] = 1
    maps = encoder_attention(encoder.eval(), torch.randint(3, 50, (24,)), mask if places else None)
    distance = (torch.arange(24)[:, None] - torch.arange(24)).abs()
    visible = (distance <= 3) | mask[:, None].bool() | mask[None].bool()
    for each in maps:
        assert torch.allclose(each.sum(-1), torch.ones(2, 24), atol=1e-5)
        assert bool((each[:, ~visible] == 0).all())
        assert bool((each[:, visible] > 0).all())


@pytest.mark.parametrize("places", [(), (0,), (0, 1, 2)])
@pytest.mark.parametrize("length", [3, 24])
def test_what_a_first_token_attends_to_is_the_first_row_of_the_last_map(length: int, places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    config = models.LongformerConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        attention_window=6, max_position_embeddings=66,
    )  # fmt: skip
    model = models.LongformerForSequenceClassification(config).eval()
    mask = torch.zeros(length, dtype=torch.long)
    mask[list(places)] = 1
    ids = torch.randint(3, 50, (length,))
    whole = encoder_attention(model.longformer, ids, mask)[-1]
    found = first_token_attention(model, {"input_ids": ids.numpy(), "global_attention_mask": mask.numpy()})
    torch.testing.assert_close(found, whole[:, 0].mean(0))
