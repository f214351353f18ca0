"""`longformer data` on documents, as a user meets it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from tests.data_pipeline.random_texts import random_texts
from tests.data_pipeline.test_reader import flip_bit


def test_train_a_tokenizer_prepare_inspect_and_verify(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, output = tmp_path / "tokenizer.json", tmp_path / "out"
    train = ["data", "train-tokenizer", "--source", str(small_corpus), "--output", str(tokenizer)]
    assert main([*train, "--vocabulary-size", "300"]) == 0
    assert "300 tokens" in capsys.readouterr().out

    prepare = ["data", "prepare", "documents", "--source", str(small_corpus), "--tokenizer", str(tokenizer)]
    assert main([*prepare, "--output", str(output), "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "400 in 2 files, 0 of them empty" in shown

    assert main([*prepare, "--output", str(output)]) == 0
    assert "is up to date: the source has not changed, nothing to do" in capsys.readouterr().out

    assert main(["data", "inspect", str(output)]) == 0
    assert capsys.readouterr().out == shown
    assert main(["data", "inspect", str(output), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["fingerprint"] == PreparedData.open(output).fingerprint
    assert sum(shard["examples"] for shard in manifest["splits"]["test"]) == 20

    assert main(["data", "verify", str(output)]) == 0
    assert "400 samples agree with their checksums" in capsys.readouterr().out
    flip_bit(output / "train-000000.tar", 700)
    assert main(["data", "verify", str(output)]) == 2
    assert "train-000000.tar sample" in capsys.readouterr().err

    assert main(train) == 2
    assert "exists already" in capsys.readouterr().err


def test_damage_allowed_and_another_field(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, source = tmp_path / "tokenizer.json", tmp_path / "lines.jsonl"
    texts = random_texts(60, seed=1)
    source.write_text("not json\n" + "".join(json.dumps({"body": text}) + "\n" for text in texts))
    train = ["data", "train-tokenizer", "--source", str(small_corpus), "--output", str(tokenizer)]
    assert main([*train, "--vocabulary-size", "300"]) == 0
    prepare = [
        "data",
        "prepare",
        "documents",
        "--source",
        str(source),
        "--tokenizer",
        str(tokenizer),
        "--field",
        "body",
    ]
    assert main([*prepare, "--output", str(tmp_path / "out"), "--workers", "1"]) == 2
    assert "lines.jsonl:1 is damaged" in capsys.readouterr().err
    assert main([*prepare, "--output", str(tmp_path / "out"), "--workers", "1", "--damaged-allowed", "1"]) == 0
    assert (tmp_path / "out" / "quarantine.jsonl").read_text().count("\n") == 1

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old.csv").write_bytes("body,id\nfür,1\n".encode("cp1252") * 9)
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    of_folder = [*prepare, "--source", str(folder), "--output", str(tmp_path / "other"), "--workers", "1"]
    assert main(of_folder) == 2
    assert "looks like" in capsys.readouterr().err
    assert main([*of_folder, "--encoding", "cp1252"]) == 0
    shown = capsys.readouterr().out
    assert f"left out: {folder / 'picture.png'} (no text" in shown
    assert main([*of_folder[:-4], "--output", str(tmp_path / "third"), "--as", "text", "--encoding", "cp1252"]) == 0


@pytest.mark.slow
def test_control_c_keeps_the_finished_shards(test_data: Path, tmp_path: Path) -> None:
    tokenizer = test_data / "tokenizer_gpt2_roberta"
    source = ["--source", str(test_data / "enwik8" / "enwik8.xz"), "--tokenizer", str(tokenizer)]
    command = [sys.executable, "-m", "launcher.cli", "data", "prepare", "documents", *source]
    process = subprocess.Popen([*command, "--output", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / ".out.staging" / "tokenizer.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(2)  # a shard takes longer: the workers are busy, or about to be
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "stopped: finished shards are kept; the same command goes on\n"
    assert not (tmp_path / "out").exists()


def test_the_loader_and_the_preparation_are_measured(
    documents_once: PreparedData, small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "loader.json"
    sizes = ["--sequence-length", "64", "--open-shards", "3", "--workers", "0", "--seconds", "0.2"]
    assert main(["bench", "data", documents_once.location, *sizes, "--json", str(report)]) == 0
    speeds = json.loads(report.read_text())["measurements"]
    assert [speed["cold"] for speed in speeds] == [True, False]
    assert min(speed["tokens_per_second"] for speed in speeds) > 0
    capsys.readouterr()

    tokenizer = f"{documents_once.location}/tokenizer.json"
    assert main(["bench", "prepare", "--source", str(small_corpus), "--tokenizer", tokenizer, "--repeats", "1"]) == 0
    assert "MB of text: library alone" in capsys.readouterr().out
