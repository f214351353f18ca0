"""Claims: every LED model gives Hugging Face's outputs and gradients, over random configs and batches."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from longformer.interop.huggingface import unpack_projections
from longformer.models.common import inputs as model_inputs
from tests.models.led_cases import LED_MODELS, make_led_case
from tests.models.longformer_cases import Case
from tests.models.test_longformer_parity import close

OUTPUTS = ("loss", "logits", "start_logits", "end_logits", "last_hidden_state")


def run(case: Case, **options: object) -> tuple[object, object]:
    asked = {"output_logits": True} if type(case.ours).__name__ == "LEDForConditionalGeneration" else {}
    return case.ours(**case.batch, **asked, **options), case.theirs(**case.batch, **options, use_cache=False)


def tokens_of(case: Case, prefix: str, like: Tensor) -> Tensor:
    """Return 1 at tokens and 0 at padding, to multiply (rows, positions, ...) with."""
    mask = case.batch.get(f"{prefix}attention_mask", torch.ones(like.shape[:2]))
    return mask.view(*mask.shape, *[1] * (like.dim() - 2)).to(like.dtype)


def loss_of(case: Case, output: object) -> Tensor:
    if type(case.ours).__name__ != "LEDModel":
        return output.loss
    hidden = output.last_hidden_state
    return (hidden * tokens_of(case, "decoder_", hidden)).square().mean()


@pytest.mark.parametrize("name", LED_MODELS)
@pytest.mark.parametrize("seeds", [range(10), range(10, 20)], ids=["a", "b"])
def test_outputs_and_gradients_agree(name: str, seeds: Iterable[int], tmp_path: Path) -> None:
    for seed in seeds:
        case = make_led_case(name, seed, tmp_path / str(seed))
        ours, theirs = run(case)
        for output in OUTPUTS:
            expected = getattr(theirs, output, None)
            if expected is not None:
                at_tokens = tokens_of(case, "decoder_", expected) if expected.dim() > 1 else 1
                close(getattr(ours, output) * at_tokens, expected * at_tokens)
        at_tokens = tokens_of(case, "", theirs.encoder_last_hidden_state)
        close(ours.encoder_last_hidden_state * at_tokens, theirs.encoder_last_hidden_state * at_tokens)
        loss_of(case, ours).backward()
        loss_of(case, theirs).backward()
        gradients = unpack_projections({key: each.grad for key, each in case.ours.named_parameters()})
        for key, parameter in case.theirs.named_parameters():
            assert (gradients[key] is None) == (parameter.grad is None), key
            if parameter.grad is not None:
                close(gradients[key], parameter.grad, tolerance=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_hidden_states_and_attentions_agree(seed: int, tmp_path: Path) -> None:
    case = make_led_case("LEDForConditionalGeneration", seed, tmp_path)
    ours, theirs = run(case, output_attentions=True, output_hidden_states=True)
    source, target = case.batch["input_ids"], ours.decoder_hidden_states[0]
    for name, prefix in (("encoder_hidden_states", ""), ("decoder_hidden_states", "decoder_")):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            close(mine * tokens_of(case, prefix, other), other * tokens_of(case, prefix, other))
    rows = tokens_of(case, "decoder_", target)[:, None]
    for name in ("decoder_attentions", "cross_attentions"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            close(mine * rows, other * rows)
    for mine, other in zip(ours.encoder_attentions, theirs.encoder_attentions, strict=True):
        close(mine, other)
    assert (ours.encoder_global_attentions is None) == (theirs.encoder_global_attentions is None)
    for mine, other in zip(ours.encoder_global_attentions or (), theirs.encoder_global_attentions or (), strict=True):
        # Hugging Face leaves its padding on, and fills slots that a row does not use with 1 / length.
        used = torch.arange(mine.shape[-1]) < case.batch["global_attention_mask"].sum(1, keepdim=True)
        close(mine, other[:, :, : source.shape[1]] * used[:, None, None, :])


@pytest.mark.parametrize("seed", range(6))
def test_removing_padding_changes_no_token(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_led_case("LEDForConditionalGeneration", seed, tmp_path)
    removed = case.ours(**case.batch).loss
    monkeypatch.setattr(model_inputs, "PADDING_WORTH_REMOVING", 2.0)
    close(removed, case.ours(**case.batch).loss)


def test_embeddings_given_instead_of_ids_agree(tmp_path: Path) -> None:
    case = make_led_case("LEDModel", 3, tmp_path)
    width = case.theirs.config.d_model
    batch = {"inputs_embeds": torch.randn(2, 17, width), "decoder_inputs_embeds": torch.randn(2, 6, width)}
    batch["attention_mask"] = torch.ones(2, 17, dtype=torch.long)
    batch["attention_mask"][0, 9:] = 0
    close(case.ours(**batch).last_hidden_state, case.theirs(**batch).last_hidden_state)


@pytest.mark.parametrize("handed_in", ["our output", "a tuple", "their output"])
def test_what_the_encoder_gave_before_is_not_computed_again(handed_in: str, tmp_path: Path) -> None:
    case = make_led_case("LEDForQuestionAnswering", 6, tmp_path)
    source = {name: each for name, each in case.batch.items() if name in ("input_ids", "attention_mask")}
    expected = case.ours(**case.batch)
    encoded = case.ours.get_encoder()(**source, global_attention_mask=case.batch.get("global_attention_mask"))
    if handed_in == "their output":
        encoded = case.theirs.led.encoder(**source, global_attention_mask=case.batch.get("global_attention_mask"))
    case.ours.led.encoder.forward = None
    rest = {name: each for name, each in case.batch.items() if name != "input_ids"}
    again = case.ours(**rest, encoder_outputs=encoded[:1] if handed_in == "a tuple" else encoded)
    close(again.loss, expected.loss)
    close(again.start_logits, expected.start_logits)


def test_a_decoder_without_a_text_of_its_own_reads_the_source_moved_on(tmp_path: Path) -> None:
    case = make_led_case("LEDModel", 1, tmp_path)
    ids = torch.randint(3, 50, (2, 12))
    close(case.ours(ids).last_hidden_state, case.theirs(ids).last_hidden_state)


def test_windows_of_any_mix_agree_at_the_lengths_that_hugging_face_can_run(tmp_path: Path) -> None:
    windows = {"attention_window": [8, 20, 12], "encoder_layers": 3, "max_encoder_position_embeddings": 120}
    case = make_led_case("LEDForConditionalGeneration", 2, tmp_path, **windows)
    ids, is_global = torch.randint(3, 50, (2, 77)), torch.zeros(2, 77, dtype=torch.long)
    is_global[0, [5, 60]] = is_global[1, 43] = 1
    mask = torch.ones_like(ids)
    mask[1, :30] = 0
    # Theirs wants a multiple of all windows.
    padded = [functional.pad(each, (0, 43), value=fill) for each, fill in ((ids, 1), (mask, 0), (is_global, 0))]
    written = torch.randint(3, 50, (2, 6))
    theirs = case.theirs(padded[0], padded[1], written, global_attention_mask=padded[2]).logits
    close(case.ours(ids, mask, written, global_attention_mask=is_global).logits, theirs)


class AttentionCalls(TorchDispatchMode):
    """Counts how often attention is computed, backward steps left out."""

    count = 0

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        self.count += name.startswith(("longformer.", "aten._scaled_dot_product")) and "backward" not in name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("keep_attention", "times"), [(False, 2), (True, 1)])
def test_checkpointing_changes_no_gradient_and_computes_attention_again_or_not(
    keep_attention: bool, times: int, tmp_path: Path
) -> None:
    case = make_led_case("LEDForConditionalGeneration", 5, tmp_path)
    gradients, counts = [], []
    for checkpointing in (False, True):
        case.ours.zero_grad()
        if checkpointing:
            case.ours.gradient_checkpointing_enable(keep_attention=keep_attention)
        with AttentionCalls() as calls:
            case.ours(**case.batch).loss.backward()
        gradients.append([parameter.grad for parameter in case.ours.parameters()])
        counts.append(calls.count)
    torch.testing.assert_close(*gradients)
    layers = case.ours.config.encoder_layers + 2 * case.ours.config.decoder_layers
    assert counts[0] >= layers
    assert counts[1] == times * counts[0]


def test_the_cases_include_removed_padding_and_padding_left_in_place(tmp_path: Path) -> None:
    packed = set()
    for seed in range(16):
        case = make_led_case("LEDModel", seed, tmp_path / str(seed))
        case.ours.encoder.layers[0].register_forward_pre_hook(
            lambda _, args: packed.add((args[1].packing is None, args[1].token_mask is None))
        )
        case.ours(**case.batch)
    assert {(False, True), (True, False), (True, True)} <= packed
