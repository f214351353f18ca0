"""Claims: LED folders go in and out unchanged, in every layout of semantics.md 1.5, and what is wrong is named."""

import json
import logging
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from longformer import models
from longformer.errors import LongformerError
from longformer.models import LEDForConditionalGeneration
from tests.models.led_cases import LED_MODELS, make_led_case

EMBEDDINGS = ("led.shared.weight", "led.encoder.embed_tokens.weight", "led.decoder.embed_tokens.weight")


@pytest.mark.parametrize("name", LED_MODELS)
def test_a_round_trip_with_hugging_face_changes_no_byte_of_the_weights(name: str, tmp_path: Path) -> None:
    make_led_case(name, 1, tmp_path / "theirs")
    getattr(models, name).from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    again = getattr(transformers, name).from_pretrained(tmp_path / "ours")
    again.save_pretrained(tmp_path / "again")
    first, ours, last = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "ours", "again"))
    assert first.keys() == ours.keys() == last.keys()
    for key, tensor in first.items():
        assert tensor.numpy().tobytes() == ours[key].numpy().tobytes() == last[key].numpy().tobytes()
    configs = [transformers.LEDConfig.from_pretrained(tmp_path / folder).to_dict() for folder in ("theirs", "ours")]
    assert configs[0] == configs[1]


def test_shards_and_the_old_binary_format_are_read(tmp_path: Path) -> None:
    case = make_led_case("LEDForConditionalGeneration", 2, tmp_path / "whole")
    case.theirs.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    write_old(tmp_path / "old", json.loads((tmp_path / "whole" / "config.json").read_text()), case.theirs.state_dict())
    for folder in ("shards", "old"):
        loaded = LEDForConditionalGeneration.from_pretrained(tmp_path / folder).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in case.ours.state_dict().items())


@pytest.mark.parametrize("stored", [*EMBEDDINGS, "lm_head.weight"])
def test_any_one_of_the_tied_embeddings_stands_for_all(stored: str, tmp_path: Path) -> None:
    case = make_led_case("LEDForConditionalGeneration", 2, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[stored] = tensors.pop("led.shared.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    model = LEDForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(model.led.shared.weight, case.ours.led.shared.weight)
    assert model.led.encoder.embed_tokens.weight is model.led.decoder.embed_tokens.weight is model.lm_head.weight


def test_untied_embeddings_stay_apart_as_in_hugging_face(tmp_path: Path) -> None:
    case = make_led_case("LEDForConditionalGeneration", 3, tmp_path / "theirs", tie_word_embeddings=False)
    tables = [dict(case.ours.named_parameters())[name] for name in (*EMBEDDINGS, "lm_head.weight")]
    assert not any(torch.equal(tables[0], table) for table in tables[1:])
    with torch.no_grad():
        torch.testing.assert_close(
            case.ours(**case.batch, output_logits=True).logits, case.theirs(**case.batch).logits, rtol=1e-5, atol=1e-5
        )
    case.ours.save_pretrained(tmp_path / "ours")
    first, ours = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "ours"))
    assert all(torch.equal(tensor, ours[name]) for name, tensor in first.items())


def test_a_missing_bias_of_the_logits_is_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = make_led_case("LEDForConditionalGeneration", 2, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["final_logits_bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        model = LEDForConditionalGeneration.from_pretrained(tmp_path)
    assert "final_logits_bias" in caplog.text
    assert float(model.final_logits_bias.abs().max()) == 0
    assert dict(model.named_buffers()).keys() == {"final_logits_bias"}
    difference = case.ours(**case.batch, output_logits=True).logits - model(**case.batch, output_logits=True).logits
    torch.testing.assert_close(difference, case.ours.final_logits_bias[0].expand_as(difference), rtol=0, atol=1e-5)


def test_the_original_allenai_layout_has_unused_positions_and_counts_one_side_of_the_window(tmp_path: Path) -> None:
    case = make_led_case("LEDForConditionalGeneration", 4, tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    config |= {
        "model_type": "bart",
        "attention_mode": "sliding_chunks",
        "attention_window": [window // 2 for window in config["attention_window"]],
        "attention_dilation": [1] * config["encoder_layers"],
        "autoregressive": False,
    }
    state = {}
    for name, tensor in case.theirs.state_dict().items():
        if name.endswith("embed_positions.weight"):
            tensor = torch.cat([torch.full_like(tensor[:2], torch.nan), tensor])
        state[name.replace("led.", "model.", 1) if name.startswith("led.") else name] = tensor
    write_old(tmp_path / "original", config, state)
    model = LEDForConditionalGeneration.from_pretrained(tmp_path / "original")
    torch.testing.assert_close(model(**case.batch).loss, case.ours(**case.batch).loss)
    model.save_pretrained(tmp_path / "ours")
    loaded = transformers.LEDForConditionalGeneration.from_pretrained(tmp_path / "ours")
    assert loaded.config.attention_window == list(case.theirs.config.attention_window)
    torch.testing.assert_close(loaded(**case.batch).loss, case.theirs(**case.batch).loss)


def test_a_head_that_a_checkpoint_lacks_starts_fresh_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = make_led_case("LEDForConditionalGeneration", 1, tmp_path)
    with caplog.at_level(logging.WARNING):
        model = models.LEDForQuestionAnswering.from_pretrained(tmp_path)
    assert "has no qa_outputs" in caplog.text
    assert float(model.qa_outputs.weight.detach().std()) > 0
    bare = models.LEDModel.from_pretrained(tmp_path)
    assert torch.equal(bare.shared.weight, case.ours.led.shared.weight)
    assert torch.equal(model.led.shared.weight, case.ours.led.shared.weight)


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    make_led_case("LEDForConditionalGeneration", 1, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["led.decoder.layers.0.encoder_attn.v_proj.bias"]
    del tensors["led.encoder.layers.0.self_attn.longformer_self_attn.key_global.weight"]
    tensors["led.decoder.surprise"] = torch.zeros(1)
    tensors["led.encoder.embed_positions.weight"] = torch.zeros(3, 5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(LongformerError) as raised:
        LEDForConditionalGeneration.from_pretrained(tmp_path)
    message = str(raised.value)
    assert "led.decoder.layers.0.encoder_attn.v_proj.bias is missing" in message
    assert "led.encoder.layers.0.self_attn.longformer_self_attn.key_global.weight is missing" in message
    assert "led.decoder.surprise is unknown" in message
    assert "led.encoder.embed_positions.weight has shape (3, 5) instead of (72," in message
    assert "\n" not in message


def test_a_file_cut_short_is_called_damaged(tmp_path: Path) -> None:
    make_led_case("LEDModel", 1, tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(LongformerError, match=r"model\.safetensors is damaged or cut short") as raised:
        models.LEDModel.from_pretrained(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_of_the_other_family_is_refused(tmp_path: Path) -> None:
    make_led_case("LEDModel", 1, tmp_path)
    with pytest.raises(LongformerError, match="family led, not longformer"):
        models.LongformerModel.from_pretrained(tmp_path)


def test_half_precision_weights_stay_as_they_are_unless_asked(tmp_path: Path) -> None:
    case = make_led_case("LEDForConditionalGeneration", 1, tmp_path / "whole")
    case.theirs.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    model = LEDForConditionalGeneration.from_pretrained(tmp_path / "half")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    whole = models.LEDForQuestionAnswering.from_pretrained(tmp_path / "half", dtype=torch.float32)
    assert {tensor.dtype for tensor in whole.state_dict().values()} == {torch.float32}


def write_old(folder: Path, config: dict[str, object], state: dict[str, Tensor]) -> None:
    """Write a folder as older libraries did: all tensors, shared ones several times, in a pickle."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "pytorch_model.bin")
