"""Claims about saved models: they come back equal, appear whole or not at all, and damage is named."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from longformer.errors import LongformerError
from longformer.models.char_lm.model import CharacterLM

Build = Callable[..., CharacterLM]


@pytest.mark.parametrize("position", ["transformer_xl", "rotary"])
def test_a_saved_model_comes_back_with_the_same_predictions(build_model: Build, position: str, tmp_path: Path) -> None:
    model = build_model(position=position)
    model.save_pretrained(tmp_path / "model")
    loaded = CharacterLM.from_pretrained(tmp_path / "model")
    tokens = torch.randint(0, 11, (1, 20))
    assert torch.equal(loaded(tokens), model(tokens))
    assert loaded.config == model.config
    assert not loaded.training


def test_weights_move_into_a_model_with_other_windows(build_model: Build, tmp_path: Path) -> None:
    model = build_model()
    model.save_pretrained(tmp_path / "model")
    wider = build_model(windows=(6, 8, 10), dropout=0.5)
    wider.load_weights(tmp_path / "model")
    for name, parameter in model.named_parameters():
        assert torch.equal(wider.get_parameter(name), parameter)


def test_an_existing_directory_is_not_overwritten(build_model: Build, tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(LongformerError, match="exists already"):
        build_model(position="rotary").save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_nothing_is_left_behind_when_writing_fails(
    build_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        build_model().save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_every_tensor_that_does_not_fit_is_listed(build_model: Build, tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["final_norm.bias"]
    tensors["surprise"] = torch.zeros(1)
    tensors["embedding.weight"] = torch.zeros(12, 24)
    save_file(tensors, path)
    with pytest.raises(LongformerError) as raised:
        CharacterLM.from_pretrained(tmp_path / "model")
    message = str(raised.value)
    assert "final_norm.bias is missing" in message
    assert "surprise is unknown" in message
    assert "embedding.weight has shape (12, 24) instead of (11, 24)" in message


def test_a_file_cut_short_is_called_damaged(build_model: Build, tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LongformerError, match="damaged or cut short"):
        CharacterLM.from_pretrained(tmp_path / "model")


def test_an_absent_model_and_a_strange_config_are_named(build_model: Build, tmp_path: Path) -> None:
    with pytest.raises(LongformerError, match=r"config\.json is missing"):
        CharacterLM.from_pretrained(tmp_path)
    build_model().save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "colour": "red"}))
    with pytest.raises(LongformerError, match="colour"):
        CharacterLM.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(LongformerError, match=r"model\.safetensors is missing"):
        build_model().load_weights(tmp_path / "model")
