"""Claims: every Longformer head gives Hugging Face's outputs and gradients, over random configs and batches."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longformer.interop.huggingface import unpack_projections
from longformer.models.common import inputs as model_inputs
from tests.models.longformer_cases import HEADS, Case, make_case

OUTPUTS = ("loss", "logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")


def run(case: Case, **options: object) -> tuple[object, object]:
    asked = {"output_logits": True} if type(case.ours).__name__ == "LongformerForMaskedLM" else {}
    return case.ours(**case.batch, **asked, **options), case.theirs(**case.batch, **options)


def close(ours: Tensor, theirs: Tensor, *, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("seeds", [range(8), range(8, 16)], ids=["a", "b"])
def test_outputs_and_gradients_agree(head: str, seeds: Iterable[int], tmp_path: Path) -> None:
    for seed in seeds:
        case = make_case(head, seed, tmp_path / str(seed))
        ours, theirs = run(case)
        for name in OUTPUTS:
            if getattr(theirs, name, None) is not None:
                close(getattr(ours, name), getattr(theirs, name))
        wanted = theirs.loss if head != "LongformerModel" else theirs[0].square().mean() + theirs[1].square().mean()
        given = ours.loss if head != "LongformerModel" else ours[0].square().mean() + ours[1].square().mean()
        wanted.backward()
        given.backward()
        gradients = {
            name: parameter.grad for name, parameter in case.ours.named_parameters() if parameter.grad is not None
        }
        expected = {name: parameter.grad for name, parameter in case.theirs.named_parameters()}
        expected = {name: gradient for name, gradient in expected.items() if gradient is not None}
        gradients = unpack_projections(gradients)
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            close(gradients[name], gradient, tolerance=1e-4)


def test_the_cases_include_removed_padding_and_padding_left_in_place(tmp_path: Path) -> None:
    packed = set()
    for seed in range(16):
        case = make_case("LongformerModel", seed, tmp_path / str(seed))
        case.ours.encoder.register_forward_pre_hook(
            lambda _, args: packed.add((args[1].packing is None, args[1].token_mask is None))
        )
        case.ours(**case.batch)
    assert {(False, True), (True, False), (True, True)} <= packed


@pytest.mark.parametrize("seed", range(6))
def test_removing_padding_changes_nothing(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("LongformerForTokenClassification", seed, tmp_path)
    removed = case.ours(**case.batch).logits
    monkeypatch.setattr(model_inputs, "PADDING_WORTH_REMOVING", 2.0)
    close(removed, case.ours(**case.batch).logits)


@pytest.mark.parametrize("seed", range(12))
def test_the_last_layer_works_only_where_a_word_is_to_be_predicted_and_teaches_the_same(
    seed: int, tmp_path: Path
) -> None:
    case = make_case("LongformerForMaskedLM", seed, tmp_path)
    rows: list[int] = []
    norm = case.ours.longformer.encoder.layer[-1].output.LayerNorm
    norm.register_forward_pre_hook(lambda _, arguments: rows.append(arguments[0].shape[:-1].numel()))
    weights = dict(case.ours.named_parameters())
    found = {}
    for everything in (True, False):
        loss = case.ours(**case.batch, output_logits=everything).loss
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        found[everything] = {"loss": loss, **dict(zip(weights, gradients, strict=True))}
    for name, expected in found[True].items():
        torch.testing.assert_close(found[False][name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert rows[1] == int((case.batch["labels"] != -100).sum()) < rows[0]


@pytest.mark.parametrize("seed", range(8))
def test_hidden_states_and_attentions_agree(seed: int, tmp_path: Path) -> None:
    case = make_case("LongformerForMaskedLM", seed, tmp_path)
    ours, theirs = run(case, output_attentions=True, output_hidden_states=True)
    positions = case.batch["input_ids"].shape[1]
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    for mine, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        close(mine, other)
    for mine, other in zip(ours.attentions, theirs.attentions, strict=True):
        close(mine, other)
    assert (ours.global_attentions is None) == (theirs.global_attentions is None)
    is_global = case.batch.get("global_attention_mask")
    for mine, other in zip(ours.global_attentions or (), theirs.global_attentions or (), strict=True):
        # Hugging Face leaves its padding on, and fills slots that a row does not use with 1 / length.
        assert is_global is not None
        used = torch.arange(mine.shape[-1]) < is_global.sum(1, keepdim=True)
        close(mine, other[:, :, :positions] * used[:, None, None, :])


@pytest.mark.parametrize("head", HEADS)
def test_every_head_hands_on_what_the_encoder_shows(head: str, tmp_path: Path) -> None:
    case = make_case(head, 7, tmp_path)
    ours, theirs = run(case, output_attentions=True, output_hidden_states=True)
    for name in ("hidden_states", "attentions"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            close(mine, other)
    assert (ours.global_attentions is None) == (theirs.global_attentions is None)


def test_embeddings_given_instead_of_ids_agree(tmp_path: Path) -> None:
    case = make_case("LongformerModel", 3, tmp_path)
    width = case.theirs.config.hidden_size
    embeddings = torch.randn(2, 17, width)
    mask = torch.ones(2, 17, dtype=torch.long)
    mask[0, 12:] = 0
    ours, theirs = (
        case.ours(inputs_embeds=embeddings, attention_mask=mask),
        case.theirs(inputs_embeds=embeddings, attention_mask=mask),
    )
    close(ours.last_hidden_state * mask[..., None], theirs.last_hidden_state * mask[..., None])


def test_embeddings_given_instead_of_ids_have_the_same_default_globals(tmp_path: Path) -> None:
    model = make_case("LongformerForSequenceClassification", 3, tmp_path).ours
    ids = torch.randint(3, 50, (2, 19))
    first = torch.zeros_like(ids)
    first[:, 0] = 1
    embeddings = model.longformer.embeddings.word_embeddings(ids)
    close(model(inputs_embeds=embeddings).logits, model(ids, global_attention_mask=first).logits)


def test_windows_of_any_mix_agree_at_the_lengths_that_hugging_face_can_run(tmp_path: Path) -> None:
    windows = {"attention_window": [8, 20, 12], "num_hidden_layers": 3, "max_position_embeddings": 140}
    case = make_case("LongformerForTokenClassification", 2, tmp_path, **windows)
    ids, is_global = torch.randint(3, 50, (2, 77)), torch.zeros(2, 77, dtype=torch.long)
    is_global[0, [5, 60]] = is_global[1, 3] = 1
    mask = torch.ones_like(ids)
    mask[1, :30] = is_global[1, :30] = 0
    # Theirs wants a multiple of all windows.
    padded = [functional.pad(each, (0, 43), value=fill) for each, fill in ((ids, 1), (mask, 0), (is_global, 0))]
    theirs = case.theirs(padded[0], attention_mask=padded[1], global_attention_mask=padded[2]).logits[:, :77]
    ours = case.ours(ids, mask, is_global).logits
    close(ours * mask[:, :, None], theirs * mask[:, :, None])


@pytest.mark.parametrize("keep_attention", [False, True])
def test_checkpointing_changes_no_gradient(keep_attention: bool, tmp_path: Path) -> None:
    case = make_case("LongformerForMaskedLM", 5, tmp_path)
    gradients = []
    for checkpointing in (False, True):
        case.ours.zero_grad()
        if checkpointing:
            case.ours.gradient_checkpointing_enable(keep_attention=keep_attention)
        case.ours(**case.batch).loss.backward()
        gradients.append([parameter.grad for parameter in case.ours.parameters()])
    torch.testing.assert_close(*gradients)
