"""Claims about `longformer convert`: it makes a model that both libraries read, and words its refusals."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from longformer.interop.tokenizer import read_tokenizer
from longformer.models import LEDForConditionalGeneration, LongformerForMaskedLM
from longformer.models.common.freezing import FREEZE_PRETRAINED, PRETRAINED_ROWS, freeze_pretrained
from tests.interop.tokenizer_folders import byte_level

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


def test_special_tokens_named_to_the_commands_are_tokens_in_data_and_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path / "short")
    byte_level(tmp_path / "short", additional_special_tokens=["<doc-sep>", "<other>"])
    (tmp_path / "lines.jsonl").write_text('{"text": "a<doc-sep>b<other>"}\n' * 40)
    prepare = ["data", "prepare", "documents", "--source", str(tmp_path / "lines.jsonl"), "--output"]
    for name in ("<doc-sep>", "[DEID]"):
        named = ["--special-token", name]
        arguments = [str(tmp_path / "short"), str(tmp_path / name), "--max-length", "50", *named]
        tokenizer = ["--tokenizer", str(tmp_path / "short"), *named]
        statuses = main(["convert", *arguments]), main([*prepare, str(tmp_path / f"data {name}"), *tokenizer])
        assert statuses == ((0, 0) if name == "<doc-sep>" else (2, 2))
    assert capsys.readouterr().err.count("has no token [DEID]; its special tokens are") == 2
    read = read_tokenizer(tmp_path / "<doc-sep>").encode("a<doc-sep>b<other>", add_special_tokens=False)
    assert read.tokens[:4] == ["a", "<doc-sep>", "b", "<"]
    example = next(iter(PreparedData.open(tmp_path / "data <doc-sep>").split("train").examples()))
    assert example.tokens["text"].tolist() == read.ids


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
