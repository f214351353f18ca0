"""Claims about `longformer convert`: it makes a model that both libraries read, and words its refusals."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from launcher.cli import main
from longformer.models import LEDForConditionalGeneration, LongformerForMaskedLM
from longformer.models.common.freezing import FREEZE_PRETRAINED, PRETRAINED_ROWS, freeze_pretrained

IMDB = Path("configs/run/imdb_small.yaml").resolve()


def make_source(folder: Path) -> None:
    config = transformers.RobertaConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=18,
        type_vocab_size=1,
    )
    transformers.RobertaForMaskedLM(config).save_pretrained(folder)


def test_convert_makes_a_longer_model_and_reports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(tmp_path / "short")
    arguments = [str(tmp_path / "short"), str(tmp_path / "long"), "--max-length", "50", "--window", "4"]
    assert main(["convert", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "reads 50 tokens" in printed
    assert "6 global projections" in printed
    assert "equals       its source up to" in printed
    model = LongformerForMaskedLM.from_pretrained(tmp_path / "long")
    assert model(torch.randint(3, 20, (1, 50))).logits.shape == (1, 50, 20)
    assert main(["convert", *arguments]) == 2
    assert "holds a model already" in capsys.readouterr().err


def test_convert_prints_every_tensor_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(tmp_path / "short")
    assert main(["convert", str(tmp_path / "short"), str(tmp_path / "long"), "--max-length", "50", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["extended"] == ["longformer.embeddings.position_embeddings.weight"]
    assert "longformer.encoder.layer.0.attention.self.query_global.weight" in report["initialised"]


def test_convert_makes_an_led_whose_new_positions_alone_are_to_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = transformers.BartConfig(
        vocab_size=20,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_position_embeddings=16,
    )
    transformers.BartForConditionalGeneration(config).save_pretrained(tmp_path / "short")
    arguments = [str(tmp_path / "short"), str(tmp_path / "long"), "--max-length", "50", "--window", "4"]
    assert main(["convert", *arguments, "--freeze-pretrained"]) == 0
    assert "reads 50 tokens" in capsys.readouterr().out
    model = LEDForConditionalGeneration.from_pretrained(tmp_path / "long")
    assert model.config.other[FREEZE_PRETRAINED]
    assert freeze_pretrained(model, model.config.other[PRETRAINED_ROWS]).shape == (50 - 16, 8)
    assert model(torch.randint(3, 20, (1, 50)), decoder_input_ids=torch.tensor([[2]])).logits.shape == (1, 1, 20)


def test_convert_words_its_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(tmp_path / "short")
    for arguments, sentence in (
        (["short", "long", "--max-length", "5"], "max_length must be at least the 16 tokens"),
        (["short", "long", "--window", "5"], "window must be even and positive"),
        (["short", "long", "--max-length", "16", "--freeze-pretrained"], "freeze_pretrained leaves nothing to train"),
        (["nowhere", "long"], "config.json is missing"),
    ):
        source, target, *rest = arguments
        assert main(["convert", str(tmp_path / source), str(tmp_path / target), *rest]) == 2
        assert sentence in capsys.readouterr().err.replace("\n", " ")


def test_a_name_of_the_hub_is_told_how_to_fetch_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("roberta-base", "allenai/led-base-16384"):
        for arguments in (
            ["convert", name, "long"],
            ["predict", name, "A text."],
            ["inspect", name],
            ["register", name, "--name", "x"],
            ["new", "run.yaml", "--from", name, "--task", "mlm", "--data", "text"],
            ["check", str(IMDB), f"model.source={name}"],
        ):
            assert main(arguments) == 2
            said = capsys.readouterr().err
            assert said.rstrip().endswith(f"on the Hugging Face hub: hf download {name} --local-dir {name}")
