"""Claims about `longformer check`: what preparation or the start of training would refuse is said, in their words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.tokenizers.subword import train_tokenizer
from launcher.cli import main
from launcher.config.load import load
from launcher.tasks.registry import data_of

SOURCES: dict[str, Any] = {
    "masked_lm": {"sources": [{"name": "some", "path": "data"}]},
    "sequence_classification": {"source": "data", "classes": ["a", "b"]},
    "summarization": {"source": "data", "target_length": 16},
}


def write_model(folder: Path, family: str, tensor: str, **settings: Any) -> None:
    folder.mkdir()
    shape = {"vocab_size": 261, "hidden_size": 8, "max_position_embeddings": 64, "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps({"model_type": family, **shape, **settings}))
    save_file({tensor: np.zeros(1)}, folder / "model.safetensors")
    train_tokenizer(["some text"], vocabulary_size=261).save(folder / "tokenizer.json")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small models, records, and a run file of every task that starts from a model."""
    monkeypatch.chdir(tmp_path)
    write_model(Path("encoder"), "roberta", "lm_head.bias")
    write_model(Path("sentences"), "roberta", "pooler.bias")
    write_model(Path("relative"), "bert", "pooler.bias", position_embedding_type="relative_key")
    write_model(Path("large"), "roberta", "lm_head.bias", vocab_size=100)
    write_model(Path("long"), "longformer", "pooler.bias")
    write_model(Path("decoder"), "bart", "model.shared.weight")
    write_model(Path("empty"), "roberta", "lm_head.bias")
    Path("empty", "model.safetensors").unlink()
    write_model(Path("cut"), "roberta", "lm_head.bias")
    Path("cut", "model.safetensors").write_bytes(b"\x40" + bytes(20))
    Path("data").mkdir()
    lines = [{"text": f"t{n}", "label": "ab"[n % 2], "document": f"d{n}", "summary": "s"} for n in range(60)]
    Path("data", "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("few.jsonl").write_text(json.dumps(lines[0]) + "\n")
    Path("prose.txt").write_text("No records.")
    for task, data in SOURCES.items():
        content = {
            "name": "mine",
            "task": task,
            "model": {"source": "decoder" if task == "summarization" else "encoder", "max_length": 128, "window": 8},
            "data": {"directory": "prepared", **data},
            "phases": [{"name": "p", "sequence_length": 16, "learning_rate": 1e-3, "steps": 1, "batch_size": 2}],
        }
        if task == "summarization":
            content["evaluation"] = {"max_length": 16}
        Path(f"{task}.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


@pytest.mark.parametrize("task", SOURCES)
def test_what_can_be_trained_is_valid(task: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{task}.yaml"]) == 0
    assert "is valid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "overrides", "sentence"),
    [
        ("masked_lm", "model.max_length=32", "max_length must be at least the 62 tokens that the source reads, not 32"),
        ("summarization", "model.max_length=32", "max_length must be at least the 64 tokens that the source reads"),
        ("masked_lm", "model.source=decoder", "is a model of the family bart; this task takes roberta"),
        ("sequence_classification", "model.source=decoder", "is a model of the family bart; this task takes roberta"),
        ("summarization", "model.source=encoder", "is a model of the family roberta; this task takes bart"),
        ("sequence_classification", "model.source=empty", "empty holds no weights: neither model.safetensors nor"),
        ("sequence_classification", "model.source=cut", "cut/model.safetensors is damaged or cut short"),
        ("sequence_classification", "model.source=relative", "position_embedding_type 'relative_key' cannot be"),
        ("masked_lm", "model.source=large", "has 261 tokens, but the model knows only 100"),
        ("masked_lm", "model.max_length=62 model.freeze_pretrained=true", "freeze_pretrained leaves nothing to train"),
        ("masked_lm", "init=encoder", "init: encoder is a model of the family roberta; this run trains longformer"),
        ("masked_lm", "init=long phases.0.sequence_length=99", "init: long reads 62 tokens, but a phase has 99"),
        ("summarization", "data.target_length=65", "the decoder of the model has 64 positions: choose at most 64"),
        ("summarization", "evaluation.max_length=66", "the decoder of the model has 64 positions: choose at most 65"),
        ("masked_lm", "data.sources.0.field=body", "it has no field body, only text, label, document, summary"),
        ("sequence_classification", "data.label=body", "it has no field body, only text, label, document, summary"),
        ("summarization", "data.layout=document=body,summary=summary", "it has no field body, only text, label"),
        ("summarization", "data.layout=squality", "is not of the layout squality (it has no 'metadata')"),
        ("summarization", "data.source=prose.txt", "prose.txt is text, but documents with summaries are records"),
    ],
)
def test_what_training_would_refuse_is_refused(
    task: str, overrides: str, sentence: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"{task}.yaml", *overrides.split()]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("source", "is_told"), [("encoder", False), ("sentences", True), ("init=long", True)])
def test_a_model_without_a_pretrained_head_is_told(
    source: str, is_told: bool, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "masked_lm.yaml", source if "=" in source else f"model.source={source}"]) == 0
    assert ("has no pretrained head for masked words" in capsys.readouterr().out) == is_told


def test_prepared_data_is_compared_with_the_run_file_and_what_it_lacks_is_told(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data", "picture.png").write_bytes(b"\x89PNG\0\0")
    Path("data", "broken.jsonl").write_text("{\n")
    run = ["summarization.yaml", "data.damaged_allowed=1"]
    data_of(load(Path(run[0]), run[1:])).prepare(in_this_process)
    assert main(["check", *run]) == 0
    told = capsys.readouterr().out
    assert f"note: prepared: left out: {Path('data', 'picture.png')} (no text: it holds NUL bytes)" in told
    assert "note: prepared: damaged: 1, named in quarantine.jsonl" in told
    assert main(["check", *run, "data.layout=document=text,summary=summary"]) == 2
    assert "prepared already holds summaries (layout document=document,summary=summary)" in capsys.readouterr().err
    Path("data", "some.jsonl").touch()
    assert main(["check", *run]) == 0
    assert "the source has changed since it was prepared" in capsys.readouterr().out

    few = ["summarization.yaml", "data.directory=other", "data.source=few.jsonl"]
    data_of(load(Path(few[0]), few[1:])).prepare(in_this_process)
    assert main(["check", *few]) == 2
    assert "other holds no documents for" in capsys.readouterr().err
