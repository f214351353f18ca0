"""Claims about the character model: its published size, what each position sees, and that it learns."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longformer.models.char_lm.config import CHARACTER_MODEL_SIZES, CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM
from longformer.models.char_lm.positions import distance_sinusoids

Build = Callable[..., CharacterLM]
POSITIONS = ("transformer_xl", "rotary")


@pytest.mark.parametrize(("size", "millions"), [("small", 41.0), ("large", 102.4)])
def test_the_papers_models_have_the_published_number_of_parameters(size: str, millions: float) -> None:
    """Both published numbers come out with the 27 characters of text8 and one matrix for both embeddings."""
    shape = CHARACTER_MODEL_SIZES[size]
    one_each = (1,) * shape["layers"]
    with torch.device("meta"):
        model = CharacterLM(CharacterModelConfig(**shape, vocabulary_size=27, windows=one_each, dilations=one_each))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("position", POSITIONS)
def test_a_prediction_depends_on_exactly_the_characters_its_bands_reach(build_model: Build, position: str) -> None:
    model = build_model(position=position, layers=1, windows=(4,), dilations=(3,))
    tokens = torch.randint(0, 11, (1, 30))
    hidden = model.embed(tokens).detach().requires_grad_()
    model.embed = lambda _: hidden
    model(tokens)[0, 20].sum().backward()
    seen = hidden.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert seen == sorted({20 - distance for distance in (0, 1, 2, 3, 4, 6, 9, 12)})


@pytest.mark.parametrize("position", POSITIONS)
def test_later_characters_never_change_a_prediction(build_model: Build, position: str) -> None:
    model = build_model(position=position)
    tokens = torch.randint(0, 11, (2, 25))
    changed = tokens.clone()
    changed[:, 15:] = (changed[:, 15:] + 1) % 11
    torch.testing.assert_close(model(changed)[:, :15], model(tokens)[:, :15])
    assert not torch.allclose(model(changed)[:, 15:], model(tokens)[:, 15:])


def transformer_xl_by_the_formula(model: CharacterLM, hidden: Tensor) -> Tensor:
    """Attention of the first layer, one pair of positions after the other (arXiv 1901.02860, section 3.3)."""
    attention, (batch, positions, width) = model.layers[0].attention, hidden.shape
    heads = attention.heads
    query, key, value = attention.query_key_value(hidden).view(batch, positions, 3, heads, -1).unbind(2)
    result = torch.zeros(batch, positions, heads, width // heads)
    for row in range(positions):
        for head, dilation in enumerate(attention.dilations):
            seen = [row - m * dilation for m in range(attention.window + 1) if row - m * dilation >= 0]
            scores = []
            for column in seen:
                sinusoid = distance_sinusoids(torch.tensor([row - column]), width)
                relative = attention.relative(sinusoid).view(heads, -1)[head]
                content = ((query[:, row, head] + model.content_bias[head]) * key[:, column, head]).sum(-1)
                distance = ((query[:, row, head] + model.distance_bias[head]) * relative).sum(-1)
                scores.append((content + distance) / (width // heads) ** 0.5)
            probabilities = torch.stack(scores, -1).softmax(-1)
            result[:, row, head] = (probabilities[..., None] * value[:, seen, head]).sum(1)
    return attention.output(result.flatten(-2))


def test_relative_positions_follow_the_transformer_xl_formula_also_in_dilated_heads(build_model: Build) -> None:
    model = build_model(dilations=(2, 1, 1), dilated_heads=1)
    hidden = torch.randn(2, 13, 24)
    expected = transformer_xl_by_the_formula(model, hidden)
    torch.testing.assert_close(model.layers[0].attention(hidden, model.shared_positions(torch.arange(13))), expected)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_place_of_a_text_does_not_matter_only_its_context(build_model: Build, position: str) -> None:
    model = build_model(position=position)
    tokens = torch.randint(0, 11, (1, 80))
    reach = sum(window * dilation for window, dilation in zip((3, 4, 5), (1, 2, 3), strict=True))
    torch.testing.assert_close(model(tokens)[:, 30 + reach :], model(tokens[:, 30:])[:, reach:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_text_shorter_than_every_window_is_read(build_model: Build, position: str) -> None:
    model = build_model(position=position, windows=(100, 100, 100))
    assert model(torch.tensor([[3]])).shape == (1, 1, 11)
    assert model(torch.randint(0, 11, (2, 9))).isfinite().all()


@pytest.mark.parametrize("position", POSITIONS)
def test_activation_checkpointing_changes_no_gradient(build_model: Build, position: str) -> None:
    tokens = torch.randint(0, 11, (2, 20))
    gradients = []
    for checkpointing in (False, True):
        model = build_model(
            position=position, dropout=0.2, attention_dropout=0.2, activation_checkpointing=checkpointing
        )
        torch.manual_seed(3)
        functional.cross_entropy(model.train()(tokens).flatten(0, 1), tokens.flatten()).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("position", POSITIONS)
def test_bfloat16_weights_predict_nearly_the_same(build_model: Build, position: str) -> None:
    model = build_model(position=position)
    tokens = torch.randint(0, 11, (1, 40))
    exact = model(tokens).softmax(-1)
    rounded = model.bfloat16()(tokens)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float().softmax(-1) - exact).abs().mean() < 0.01


@pytest.mark.parametrize("position", POSITIONS)
def test_autocast_predicts_nearly_the_same_and_trains_every_weight(build_model: Build, position: str) -> None:
    model = build_model(position=position)
    tokens = torch.randint(0, 11, (1, 40))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(tokens).float()
    assert (rounded.softmax(-1) - model(tokens).softmax(-1)).abs().mean() < 0.01
    functional.cross_entropy(rounded.flatten(0, 1), tokens.flatten()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("position", POSITIONS)
def test_a_fresh_model_learns_a_short_text_by_heart(position: str) -> None:
    torch.manual_seed(0)
    model = CharacterLM(
        CharacterModelConfig(
            vocabulary_size=11,
            layers=2,
            hidden_size=32,
            heads=2,
            feedforward_size=64,
            windows=(8, 8),
            dilations=(1, 2),
            position=position,
        )
    )
    text = torch.randint(0, 11, (1, 49))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
