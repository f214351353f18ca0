"""Claims: where every token sees every other, an LED made of a BART or mBART equals its source, also in writing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from longformer import models
from longformer.errors import LongformerError
from longformer.interop.convert import convert

SHAPE = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 32,
}
HEADS = ["ForConditionalGeneration", "ForQuestionAnswering", "Model"]
WRITING = {"num_beams": 3, "max_length": 12, "no_repeat_ngram_size": 2, "forced_bos_token_id": 5, "length_penalty": 2.0}


def make_source(name: str, folder: Path, head: str = "ForConditionalGeneration", **overrides: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **overrides})
    model = getattr(transformers, name + head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        if head == "ForConditionalGeneration":
            model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    return model


def make_batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, 40, (2, 32))
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    ids[1, 20:] = 1
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": torch.randint(3, 40, (2, 9))}


def assert_same_outputs(expected: Any, result: Any) -> None:
    names = {"logits", "start_logits", "end_logits", "last_hidden_state"} & set(expected)
    assert names
    for name in names:
        torch.testing.assert_close(result[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Bart", "MBart"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("is_global", [False, True])
def test_a_converted_model_equals_its_source_where_everyone_sees_everyone(
    name: str, head: str, scaled: bool, is_global: bool, tmp_path: Path
) -> None:
    source = make_source(name, tmp_path / "short", head, scale_embedding=scaled)
    convert(tmp_path / "short", tmp_path / "long", max_length=100, window=64)
    model = getattr(models, f"LED{head}").from_pretrained(tmp_path / "long")
    # What is written again is read as the same.
    model.save_pretrained(tmp_path / "again")
    model = getattr(models, f"LED{head}").from_pretrained(tmp_path / "again")
    batch = make_batch()
    assert_same_outputs(source(**batch), model(**batch, global_attention_mask=batch["attention_mask"] * is_global))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("is_global", [False, True])
def test_a_converted_bart_equals_its_source_in_hugging_faces_led(head: str, is_global: bool, tmp_path: Path) -> None:
    source = make_source("Bart", tmp_path / "short", head)
    report = convert(tmp_path / "short", tmp_path / "long", max_length=100, window=64)
    assert len(report.initialised) == 2 * 6
    assert report.extended == ["led.encoder.embed_positions.weight"]
    assert report.left_out == []
    tensors = load_file(tmp_path / "long" / "model.safetensors")
    assert sorted(report.copied + report.extended + report.initialised) == sorted(tensors)
    batch = make_batch()
    model, loading = getattr(transformers, f"LED{head}").from_pretrained(tmp_path / "long", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    result = model(**batch, global_attention_mask=batch["attention_mask"] * is_global)
    assert_same_outputs(source(**batch), result)


@pytest.mark.parametrize("name", ["Bart", "MBart"])
@pytest.mark.parametrize("in_own_file", [True, False])
def test_a_converted_model_writes_what_its_source_writes(name: str, in_own_file: bool, tmp_path: Path) -> None:
    make_source(name, tmp_path / "short")
    settings = tmp_path / "short" / ("generation_config.json" if in_own_file else "config.json")
    settings.write_text(json.dumps(json.loads(settings.read_text()) | WRITING))
    if not in_own_file:
        (tmp_path / "short" / "generation_config.json").unlink()
    source = getattr(transformers, f"{name}ForConditionalGeneration").from_pretrained(tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "long", max_length=100, window=64)
    ids = make_batch()["input_ids"][:1]
    expected = source.generate(ids)
    assert expected[0, 1] == WRITING["forced_bos_token_id"]
    for library in (models, transformers) if name == "Bart" else (models,):
        model = library.LEDForConditionalGeneration.from_pretrained(tmp_path / "long")
        assert model.generate(ids).tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["Bart", "MBart"])
@pytest.mark.parametrize("max_length", [75, 2**15])
def test_encoder_positions_repeat_block_by_block_without_the_rows_of_no_token(
    name: str, max_length: int, tmp_path: Path
) -> None:
    source = make_source(name, tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "long", max_length=max_length, window=8)
    tensors = load_file(tmp_path / "long" / "model.safetensors")
    own = source.model.encoder.embed_positions.weight[2:]
    table = tensors["led.encoder.embed_positions.weight"]
    assert len(table) == max_length
    for first in range(0, max_length, len(own)):
        block = table[first : first + len(own)]
        assert torch.equal(block, own[: len(block)])
    assert torch.equal(tensors["led.decoder.embed_positions.weight"], source.model.decoder.embed_positions.weight[2:])


def test_an_led_can_be_made_longer_and_keeps_its_global_projections(tmp_path: Path) -> None:
    make_source("Bart", tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=8)
    model = transformers.LEDForConditionalGeneration.from_pretrained(tmp_path / "long")
    with torch.no_grad():
        model.led.encoder.layers[0].self_attn.longformer_self_attn.query_global.weight.add_(1)
    model.save_pretrained(tmp_path / "trained")
    report = convert(tmp_path / "trained", tmp_path / "longer", max_length=200, window=16)
    assert report.initialised == []
    longer = transformers.LEDForConditionalGeneration.from_pretrained(tmp_path / "longer")
    assert longer.config.max_encoder_position_embeddings == 200
    for name, tensor in model.state_dict().items():
        if name != "led.encoder.embed_positions.weight":
            assert torch.equal(longer.state_dict()[name], tensor)


@pytest.mark.parametrize("stored", ["model.encoder.embed_tokens.weight", "lm_head.weight"])
def test_any_one_of_the_tied_embeddings_stands_for_all(stored: str, tmp_path: Path) -> None:
    source = make_source("Bart", tmp_path / "short")
    tensors = load_file(tmp_path / "short" / "model.safetensors")
    tensors[stored] = tensors.pop("model.shared.weight")
    save_file(tensors, tmp_path / "short" / "model.safetensors", {"format": "pt"})
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=64)
    model = models.LEDForConditionalGeneration.from_pretrained(tmp_path / "long")
    assert_same_outputs(source(**make_batch()), model(**make_batch()))


def test_leftovers_of_fairseq_are_ignored_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_source("Bart", tmp_path / "short")

    def add_leftovers(folder: Path, base: str) -> None:
        tensors = load_file(folder / "model.safetensors")
        leftovers = {f"{base}.{part}.version": torch.tensor([3.0]) for part in ("encoder", "decoder")}
        save_file(tensors | leftovers, folder / "model.safetensors", {"format": "pt"})

    add_leftovers(tmp_path / "short", "model")
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=64)
    assert "leftovers of fairseq, which are ignored: model.decoder.version, model.encoder.version" in caplog.text
    add_leftovers(tmp_path / "long", "led")
    model = models.LEDForConditionalGeneration.from_pretrained(tmp_path / "long")
    assert_same_outputs(source(**make_batch()), model(**make_batch()))


def test_embeddings_that_are_not_tied_stay_apart(tmp_path: Path) -> None:
    source = make_source("Bart", tmp_path / "short", tie_word_embeddings=False)
    convert(tmp_path / "short", tmp_path / "long", max_length=64, window=64)
    model = transformers.LEDForConditionalGeneration.from_pretrained(tmp_path / "long")
    assert torch.equal(model.lm_head.weight, source.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, model.led.shared.weight)
    torch.testing.assert_close(model(**make_batch()).logits, source(**make_batch()).logits, rtol=1e-4, atol=1e-5)


def test_what_hugging_faces_led_cannot_compute_is_a_family_of_its_own(tmp_path: Path) -> None:
    make_source("MBart", tmp_path / "mbart", scale_embedding=True)
    make_source("Bart", tmp_path / "scaled", scale_embedding=True)
    make_source("Bart", tmp_path / "plain")
    found = {}
    for name in ("mbart", "scaled", "plain"):
        convert(tmp_path / name, tmp_path / f"long-{name}", max_length=64, window=8)
        settings = json.loads((tmp_path / f"long-{name}" / "config.json").read_text())
        found[name] = tuple(settings[key] for key in ("model_type", "normalize_before", "scale_embedding"))
    assert found == {
        "mbart": ("longformer-led", True, True),
        "scaled": ("longformer-led", False, True),
        "plain": ("led", False, False),
    }
    with pytest.raises(ValueError, match="longformer-led"):
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "long-mbart")


@pytest.mark.parametrize("name", ["Bart", "MBart"])
@pytest.mark.parametrize("named", [None, []])
def test_a_config_that_names_no_class_is_that_of_a_model_without_a_head(name: str, named: Any, tmp_path: Path) -> None:
    make_source(name, tmp_path / "short")
    file = tmp_path / "short" / "config.json"
    nulls = ("tie_word_embeddings", "scale_embedding", "normalize_before", "bos_token_id")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": named} | dict.fromkeys(nulls)))
    convert(tmp_path / "short", tmp_path / "long", max_length=100, window=64)
    assert json.loads((tmp_path / "long" / "config.json").read_text())["architectures"] == ["LEDModel"]
    assert models.LEDForConditionalGeneration.from_pretrained(tmp_path / "long").config.vocab_size == 40


@pytest.mark.parametrize(("key", "value"), [("max_position_embeddings", 50), ("vocab_size", 41), ("decoder_layers", 2)])
def test_a_config_that_contradicts_the_weights_is_refused(key: str, value: int, tmp_path: Path) -> None:
    make_source("Bart", tmp_path / "short")
    file = tmp_path / "short" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(LongformerError, match=r"config\.json (says|does not describe)"):
        convert(tmp_path / "short", tmp_path / "long", max_length=100, window=64)
    assert not (tmp_path / "long").exists()
