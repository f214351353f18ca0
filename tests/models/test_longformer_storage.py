"""Claims: Longformer folders go in and out unchanged, in every layout of semantics.md 1.5, and faults are named."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from longformer import models
from longformer.errors import LongformerError
from tests.models.longformer_cases import HEADS, make_case


@pytest.mark.parametrize("head", HEADS)
def test_a_round_trip_with_hugging_face_changes_no_byte_of_the_weights(head: str, tmp_path: Path) -> None:
    make_case(head, 1, tmp_path / "theirs")
    getattr(models, head).from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    again = getattr(transformers, head).from_pretrained(tmp_path / "ours")
    again.save_pretrained(tmp_path / "again")
    first, ours, last = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours", "again"))
    assert first.keys() == ours.keys() == last.keys()
    for name, tensor in first.items():
        assert tensor.numpy().tobytes() == ours[name].numpy().tobytes() == last[name].numpy().tobytes()


def test_half_precision_weights_stay_as_they_are_unless_asked(tmp_path: Path) -> None:
    case = make_case("LongformerForMaskedLM", 1, tmp_path / "whole")
    case.theirs.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    model = models.LongformerForMaskedLM.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.decoder.weight is model.longformer.embeddings.word_embeddings.weight
    whole = models.LongformerForSequenceClassification.from_pretrained(tmp_path / "half", dtype=torch.float32)
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}


def test_config_keys_that_we_do_not_know_survive(tmp_path: Path) -> None:
    case = make_case("LongformerForTokenClassification", 1, tmp_path / "theirs")
    case.theirs.config.id2label = {index: f"name {index}" for index in range(case.theirs.config.num_labels)}
    case.theirs.config.favourite_colour = "red"
    case.theirs.config.save_pretrained(tmp_path / "theirs")
    models.LongformerForTokenClassification.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    config = transformers.LongformerConfig.from_pretrained(tmp_path / "ours")
    expected = transformers.LongformerConfig.from_pretrained(tmp_path / "theirs")
    assert config.to_dict() == expected.to_dict()


def test_shards_and_the_old_binary_format_are_read(tmp_path: Path) -> None:
    case = make_case("LongformerForMaskedLM", 2, tmp_path / "whole")
    expected = models.LongformerForMaskedLM.from_pretrained(tmp_path / "whole").state_dict()
    case.theirs.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    old = tmp_path / "old"
    old.mkdir()
    case.theirs.config.save_pretrained(old)
    state = {**case.theirs.state_dict(), "longformer.embeddings.position_ids": torch.arange(64)[None]}
    torch.save(state, old / "pytorch_model.bin")
    for folder in ("shards", "old"):
        loaded = models.LongformerForMaskedLM.from_pretrained(tmp_path / folder).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    next((tmp_path / "shards").glob("*00002-of*.safetensors")).unlink()
    with pytest.raises(LongformerError, match=r"00002-of.* is missing"):
        models.LongformerForMaskedLM.from_pretrained(tmp_path / "shards")


@pytest.mark.parametrize("prefix", ["roberta.", "model.", ""])
def test_the_original_allenai_layout_counts_one_side_of_the_window(prefix: str, tmp_path: Path) -> None:
    case = make_case("LongformerModel", 4, tmp_path / "theirs")
    original = tmp_path / "original"
    original.mkdir()
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    del config["model_type"]
    config |= {
        "attention_mode": "sliding_chunks",
        "attention_window": [window // 2 for window in config["attention_window"]],
        "attention_dilation": [1] * config["num_hidden_layers"],
        "autoregressive": False,
    }
    (original / "config.json").write_text(json.dumps(config))
    torch.save(
        {prefix + name: tensor for name, tensor in case.theirs.state_dict().items()}, original / "pytorch_model.bin"
    )
    model = models.LongformerModel.from_pretrained(original)
    torch.testing.assert_close(model(**case.batch).last_hidden_state, case.ours(**case.batch).last_hidden_state)
    model.save_pretrained(tmp_path / "ours")
    loaded = transformers.LongformerModel.from_pretrained(tmp_path / "ours")
    assert loaded.config.attention_window == list(case.theirs.config.attention_window)


@pytest.mark.parametrize("head", ["LongformerModel", "LongformerForMaskedLM"])
def test_a_model_with_compiled_layers_is_saved_under_plain_names(head: str, tmp_path: Path) -> None:
    case = make_case(head, 1, tmp_path / "theirs")
    encoder = case.ours.encoder if head == "LongformerModel" else case.ours.longformer.encoder
    encoder.layer[-1] = torch.compile(encoder.layer[-1], backend="eager")
    assert any("_orig_mod" in name for name, _ in case.ours.named_parameters())
    torch.compile(case.ours, backend="eager").save_pretrained(tmp_path / "ours")
    expected, saved = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace(".layer.0.", ".layer.0._orig_mod."),
        lambda name: name.replace(".layer.0.", ".layer.0._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
)
def test_names_of_wrapped_modules_are_read_with_a_note(
    wrapped: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = make_case("LongformerForMaskedLM", 1, tmp_path)
    expected = load_file(tmp_path / "model.safetensors")
    save_file({wrapped(name): tensor for name, tensor in expected.items()}, tmp_path / "model.safetensors")
    tensors = models.LongformerForMaskedLM.from_pretrained(tmp_path).named_tensors()
    assert "was saved from a wrapped model" in caplog.text
    for name, tensor in case.ours.named_tensors().items():
        assert torch.equal(tensors[name], tensor)


def test_two_tensors_for_one_name_are_refused(tmp_path: Path) -> None:
    make_case("LongformerForMaskedLM", 1, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "module.lm_head.bias": tensors["lm_head.bias"].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(LongformerError, match=r"two tensors for lm_head\.bias"):
        models.LongformerForMaskedLM.from_pretrained(tmp_path)


def test_a_head_that_a_checkpoint_lacks_starts_fresh_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_case("LongformerForMaskedLM", 1, tmp_path)
    with caplog.at_level(logging.WARNING):
        model = models.LongformerForSequenceClassification.from_pretrained(tmp_path, num_labels=7)
    assert "classifier" in caplog.text
    assert "lm_head" in caplog.text
    assert model.classifier.out_proj.weight.shape[0] == 7
    assert float(model.classifier.dense.weight.std()) > 0
    assert not model.training


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    make_case("LongformerForMaskedLM", 1, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["longformer.encoder.layer.0.attention.self.key.weight"]
    del tensors["lm_head.layer_norm.bias"]
    tensors["longformer.encoder.surprise"] = torch.zeros(1)
    tensors["longformer.embeddings.LayerNorm.weight"] = torch.zeros(3)
    save_file(tensors, path)
    with pytest.raises(LongformerError) as raised:
        models.LongformerForMaskedLM.from_pretrained(tmp_path)
    message = str(raised.value)
    assert "longformer.encoder.layer.0.attention.self.key.weight is missing" in message
    assert "lm_head.layer_norm.bias is missing" in message
    assert "longformer.encoder.surprise is unknown" in message
    assert "longformer.embeddings.LayerNorm.weight has shape (3,) instead of" in message


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_cut_short_is_called_damaged(name: str, tmp_path: Path) -> None:
    case = make_case("LongformerModel", 1, tmp_path)
    path = tmp_path / name
    if name.endswith(".bin"):
        (tmp_path / "model.safetensors").unlink()
        torch.save(case.theirs.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(LongformerError, match=f"{name} is damaged or cut short") as raised:
        models.LongformerModel.from_pretrained(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_pickle_with_more_than_tensors_is_not_executed(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "harm",)

    make_case("LongformerModel", 1, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weight": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LongformerError, match="holds more than tensors"):
        models.LongformerModel.from_pretrained(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_other_families_and_other_patterns_are_named(tmp_path: Path) -> None:
    make_case("LongformerModel", 1, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"model_type": "bert"}, "family bert, not longformer"),
        ({"model_type": None}, "family unknown"),
        ({"attention_mode": "n2"}, "attention_mode 'n2' is another pattern"),
        ({"autoregressive": True}, "autoregressive is set"),
        ({"attention_dilation": [2]}, "attention_dilation is set"),
        ({"attention_window": [7]}, "attention_window must be"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(LongformerError, match=message):
            models.LongformerModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LongformerError, match="not valid JSON"):
        models.LongformerModel.from_pretrained(tmp_path)
    with pytest.raises(LongformerError, match=r"config\.json is missing"):
        models.LongformerModel.from_pretrained(tmp_path / "nowhere")


def test_a_saved_model_is_not_overwritten(tmp_path: Path) -> None:
    case = make_case("LongformerModel", 1, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(LongformerError, match="holds a model already"):
        case.ours.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
