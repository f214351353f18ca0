"""Hugging Face's arguments of a call are accepted, and a batch in which nothing is labelled teaches nothing."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from longformer.models.common import token_loss
from longformer.models.common.token_loss import IGNORED
from tests.models.led_cases import LED_MODELS, make_led_case
from tests.models.longformer_cases import HEADS, make_case

OUTSIDE = {"start_positions": torch.tensor([50, 50]), "end_positions": torch.tensor([50, 50])}
NOT_LABELLED = {
    "LongformerForMaskedLM": {"labels": torch.full((2, 12), IGNORED)},
    "LongformerForTokenClassification": {"labels": torch.full((2, 12), IGNORED)},
    "LongformerForQuestionAnswering": OUTSIDE,
    "LEDForConditionalGeneration": {"labels": torch.full((2, 12), IGNORED)},
    "LEDForQuestionAnswering": OUTSIDE,
}


@pytest.mark.parametrize("name", [*HEADS, *LED_MODELS])
def test_without_return_dict_the_values_come_as_a_plain_tuple(name: str, tmp_path: Path) -> None:
    case = make_led_case(name, 1, tmp_path) if name in LED_MODELS else make_case(name, 1, tmp_path)
    with torch.no_grad():
        found = case.ours(**case.batch, return_dict=False)
        expected = case.ours(**case.batch, return_dict=True)
    assert type(found) is tuple
    torch.testing.assert_close(found, expected.to_tuple())


def test_use_cache_is_accepted_and_true_asks_for_a_cache(tmp_path: Path) -> None:
    case = make_led_case("LEDForConditionalGeneration", 1, tmp_path)
    ids = case.batch["input_ids"]
    cache = case.ours.get_decoder().new_cache(case.ours.get_encoder()(ids).last_hidden_state, None)
    first = ids[:, :1]
    logits = case.ours(decoder_input_ids=first, past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(logits, case.ours(ids, decoder_input_ids=first, use_cache=False).logits)
    with pytest.raises(ValueError, match="use_cache needs a cache: give past_key_values"):
        case.ours(ids, decoder_input_ids=first, use_cache=True)


@pytest.mark.parametrize("name", NOT_LABELLED)
def test_a_batch_in_which_nothing_is_labelled_has_loss_zero_and_gradients_zero(name: str, tmp_path: Path) -> None:
    case = make_led_case(name, 2, tmp_path) if name in LED_MODELS else make_case(name, 2, tmp_path)
    ids = torch.randint(3, 50, (2, 12))
    options = {"global_attention_mask": torch.zeros(2, 12, dtype=torch.long)} if "Question" in name else {}
    loss = case.ours(ids, **NOT_LABELLED[name], **options).loss
    loss.backward()
    assert loss == 0
    gradients = [parameter.grad for parameter in case.ours.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool((gradient == 0).all()) for gradient in gradients)


@pytest.mark.parametrize("rows", [0, 1, 4, 11])
@pytest.mark.parametrize("frozen", [(), ("weight",), ("states", "bias")])
def test_the_loss_of_a_vocabulary_is_the_mean_cross_entropy_with_its_gradients(
    rows: int, frozen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_loss, "CHUNK", 4)
    torch.manual_seed(0)
    shapes = {"states": (rows, 8), "weight": (30, 8), "bias": (30,)}
    given = {name: torch.randn(shape, requires_grad=name not in frozen) for name, shape in shapes.items()}
    targets = torch.randint(0, 30, (rows,))
    logits = functional.linear(given["states"], given["weight"], given["bias"])
    expected = functional.cross_entropy(logits, targets, reduction="sum") / max(1, rows)
    found = token_loss.masked_lm_loss(given["states"], targets, given["weight"], given["bias"])
    torch.testing.assert_close(found, expected)
    learning = [tensor for tensor in given.values() if tensor.requires_grad]
    torch.testing.assert_close(torch.autograd.grad(3 * found, learning), torch.autograd.grad(3 * expected, learning))


def test_the_loss_of_a_vocabulary_keeps_the_precision_of_autocast() -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(6, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    targets, bias = torch.randint(0, 30, (6,)), torch.zeros(30)
    with torch.autocast("cpu", torch.bfloat16):
        found = token_loss.masked_lm_loss(states, targets, weight, bias)
        expected = functional.cross_entropy(functional.linear(states, weight).float(), targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (states, weight)),
        torch.autograd.grad(expected, (states, weight)),
        rtol=2e-2,
        atol=2e-3,
    )
