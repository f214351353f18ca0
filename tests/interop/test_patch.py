"""Claims: a patched Hugging Face model gives the same outputs and gradients, for memory linear in the length."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from longformer.interop import patch
from tests.models.largest_tensor import LargestTensor
from tests.models.led_cases import LED_MODELS, make_led_case
from tests.models.longformer_cases import HEADS, make_case


def make_led(name: str) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LEDConfig(
        vocab_size=30,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        attention_window=[4, 8],
        max_encoder_position_embeddings=128,
        max_decoder_position_embeddings=64,
        dropout=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def led_batch(positions: int) -> dict[str, Tensor]:
    mask = torch.ones(2, positions, dtype=torch.long)
    mask[1, positions - 5 :] = 0
    global_mask = torch.zeros_like(mask)
    global_mask[0, :3] = global_mask[1, 4] = 1
    ids = torch.randint(3, 30, (2, positions)).masked_fill(mask == 0, 1)
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": global_mask}


def tensors_of(output: Any) -> dict[str, Tensor]:
    """Flatten an output into named tensors."""
    found = {}
    for name, value in output.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, tuple):
            found |= {f"{name}[{index}]": each for index, each in enumerate(value)}
    return found


def outputs_and_gradients(model: nn.Module, run: Callable[[], Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model.zero_grad()
    outputs = tensors_of(run())
    sum(tensor.square().mean() for tensor in outputs.values() if tensor.requires_grad).backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {name: tensor.detach() for name, tensor in outputs.items()}, gradients


def assert_alike(before: dict[str, Tensor], after: dict[str, Tensor], tolerance: float) -> None:
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(
            after[name], tensor, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("head", HEADS)
def test_a_patched_longformer_gives_the_same_outputs_and_gradients(head: str, tmp_path: Path) -> None:
    for seed in range(5):
        case = make_case(head, seed, tmp_path / str(seed))
        mask = case.batch.get("attention_mask")
        if head == "LongformerForSequenceClassification" and mask is not None and mask.argmax(1).any():
            continue  # padding on the left, which this one refuses
        asked = {"output_hidden_states": True}
        before = outputs_and_gradients(case.theirs, lambda: case.theirs(**case.batch, **asked))  # noqa: B023
        parameters = dict(case.theirs.named_parameters())
        assert patch(case.theirs) is case.theirs
        assert {name: id(each) for name, each in case.theirs.named_parameters()} == {
            name: id(each) for name, each in parameters.items()
        }
        after = outputs_and_gradients(case.theirs, lambda: case.theirs(**case.batch, **asked))  # noqa: B023
        assert_alike(before[0], after[0], 1e-5)
        assert_alike(before[1], after[1], 1e-4)


@pytest.mark.parametrize("name", LED_MODELS)
@pytest.mark.parametrize("positions", [24, 29])
def test_a_patched_led_gives_the_same_outputs_and_gradients(name: str, positions: int) -> None:
    model = make_led(name)
    batch = led_batch(positions)
    batch["decoder_input_ids"] = torch.randint(3, 30, (2, 7))
    asked = {"output_hidden_states": True, "use_cache": False}
    before = outputs_and_gradients(model, lambda: model(**batch, **asked))
    patch(model)
    after = outputs_and_gradients(model, lambda: model(**batch, **asked))
    assert_alike(before[0], after[0], 1e-5)
    assert_alike(before[1], after[1], 1e-4)


def test_attentions_of_a_patched_led_agree() -> None:
    model = make_led("LEDModel")
    batch = led_batch(24)
    with torch.no_grad():
        before = model.encoder(**batch, output_attentions=True)
        after = patch(model).encoder(**batch, output_attentions=True)
    used = torch.arange(3) < batch["global_attention_mask"].sum(1, keepdim=True)
    for layer in range(2):
        torch.testing.assert_close(after.attentions[layer], before.attentions[layer], rtol=1e-5, atol=1e-5)
        expected = before.global_attentions[layer] * used[:, None, None, :]
        torch.testing.assert_close(after.global_attentions[layer], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LED_MODELS)
def test_a_patched_led_of_any_shape_gives_the_same_outputs_and_gradients(name: str, tmp_path: Path) -> None:
    for seed in range(6):
        case = make_led_case(name, seed, tmp_path / str(seed))
        before = outputs_and_gradients(case.theirs, lambda: case.theirs(**case.batch, use_cache=False))  # noqa: B023
        patch(case.theirs)
        after = outputs_and_gradients(case.theirs, lambda: case.theirs(**case.batch, use_cache=False))  # noqa: B023
        assert_alike(before[0], after[0], 1e-5)
        assert_alike(before[1], after[1], 1e-4)


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_beams": 3, "length_penalty": 2.0, "no_repeat_ngram_size": 3}, {"do_sample": True}],
    ids=["greedy", "beams", "sampling"],
)
def test_a_patched_led_generates_the_same_tokens(settings: dict[str, Any]) -> None:
    model = make_led("LEDForConditionalGeneration")
    batch = led_batch(21)
    written = []
    for _ in range(2):
        torch.manual_seed(0)
        written.append(model.generate(**batch, **settings, max_length=12))
        patch(model)
    assert written[0].shape[1] > 2
    assert torch.equal(*written)


def test_a_patched_led_computes_layers_again_in_backward_with_the_same_gradients() -> None:
    model = patch(make_led("LEDForConditionalGeneration"))
    batch = led_batch(29) | {"labels": torch.randint(3, 30, (2, 7))}
    once = outputs_and_gradients(model, lambda: model(**batch, use_cache=False))
    model.gradient_checkpointing_enable()
    model.train()
    assert_alike(once[1], outputs_and_gradients(model, lambda: model(**batch, use_cache=False))[1], 1e-6)


def test_patching_twice_and_gradient_checkpointing_change_nothing(tmp_path: Path) -> None:
    case = make_case("LongformerForTokenClassification", 4, tmp_path)
    model = patch(patch(case.theirs))
    once = outputs_and_gradients(model, lambda: model(**case.batch))
    model.gradient_checkpointing_enable()
    model.train()
    again = outputs_and_gradients(model, lambda: model(**case.batch))
    assert_alike(once[1], again[1], 1e-6)
    model.save_pretrained(tmp_path / "patched")
    reloaded = transformers.LongformerForTokenClassification.from_pretrained(tmp_path / "patched")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in reloaded.state_dict().items())


def test_older_masks_with_a_2_for_global_tokens_still_work() -> None:
    model = make_led("LEDModel")
    batch = led_batch(24)
    merged = batch["attention_mask"] * (1 + batch["global_attention_mask"])
    with torch.no_grad():
        expected = patch(model).encoder(**batch).last_hidden_state
        older = model.encoder(batch["input_ids"], merged).last_hidden_state
    assert torch.equal(older, expected)


def test_no_tensor_of_positions_times_positions_is_made() -> None:
    model = patch(make_led("LEDModel")).encoder
    model.embed_positions = type(model.embed_positions)(2048, 16)
    sizes = []
    for positions in (512, 2048):
        with torch.no_grad(), LargestTensor() as largest:
            model(torch.randint(3, 30, (1, positions)), torch.ones(1, positions, dtype=torch.long))
        sizes.append(largest.numbers)
    assert sizes[1] <= 4 * sizes[0]


def test_a_model_without_such_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a Longformer nor an LED"):
        patch(nn.Linear(2, 2))
