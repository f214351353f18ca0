"""`longformer data` as a user meets it."""

import json
from pathlib import Path

import pytest

from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream
from launcher.cli import main


def test_prepare_inspect_and_verify(small_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    arguments = ["data", "prepare", "text", "--source", str(small_text), "--output", str(output)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "1,800,000" in shown
    assert "up to date" not in shown

    assert main(arguments) == 0
    assert "is up to date: the source has not changed, nothing to do" in capsys.readouterr().out

    assert main(["data", "inspect", str(output), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["fingerprint"] == PreparedData.open(output).fingerprint
    assert sum(shard["tokens"]["text"] for shard in manifest["splits"]["test"]) == 100_000

    assert main(["data", "inspect", str(output)]) == 0
    assert capsys.readouterr().out == shown

    assert main(["data", "verify", str(output)]) == 0
    assert "32 samples agree with their checksums" in capsys.readouterr().out


def test_limit_takes_only_the_beginning(small_text: Path, tmp_path: Path) -> None:
    arguments = ["--source", str(small_text), "--output", str(tmp_path / "out"), "--limit-bytes", "1000"]
    assert main(["data", "prepare", "text", *arguments]) == 0
    stream = TokenStream(PreparedData.open(tmp_path / "out").split("train"))
    assert stream.read(0, len(stream)).tobytes() == small_text.read_bytes()[:900]


def test_verify_names_every_damaged_sample_and_fails(
    prepared_copy: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = Path(prepared_copy.location) / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[5_000] ^= 1
    shard.write_bytes(content)
    assert main(["data", "verify", prepared_copy.location]) == 2
    assert "train-000000.tar sample 000000000 is damaged" in capsys.readouterr().err
    content[100_000] ^= 1
    shard.write_bytes(content)
    assert main(["data", "verify", prepared_copy.location]) == 2
    captured = capsys.readouterr()
    assert "sample 000000000" in captured.out
    assert "sample 000000001" in captured.out
    assert "is damaged in 2 places" in captured.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prepare", "enwik", "--output", "x"], "enwik is not a known recipe: did you mean enwik8?"),
        (["prepare", "text", "--output", "x"], "recipe text needs a source: give --source with"),
        (["prepare", "text", "--source", "nowhere", "--output", "x"], "source nowhere does not exist"),
        (["inspect", "nowhere"], "nowhere holds no prepared data"),
        (["verify", "nowhere"], "nowhere holds no prepared data"),
        (["prepare", "documents", "--output", "x"], "documents need a source: give --source"),
        (["prepare", "documents", "--output", "x", "--source", "."], "documents need a tokenizer: give --tokenizer"),
        (["prepare", "document", "--output", "x"], "document is not a known recipe: did you mean documents?"),
        (["prepare", "labelled", "--output", "x", "--source", "."], "labelled need a tokenizer: give --tokenizer"),
        (["prepare", "text", "--output", "x", "--source", ".", "--tokenizer", "t"], "recipe text takes no --tokenizer"),
        (["prepare", "documents", "--output", "x", "--limit-bytes", "5"], "documents take no --limit-bytes"),
        (["inspect", "nothing://place"], "nothing://place cannot be opened"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {sentence}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
