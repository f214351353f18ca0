"""Claims about `model.source`: a short model, a long one, a finished run or a registered model, each taken as it is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
import yaml

from launcher.cli import main
from launcher.config.load import load
from launcher.config.mlflow_address import ADDRESS_VARIABLE
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.data import InputData
from launcher.tasks.registry import data_of
from launcher.training.start_model import bring_start_model
from longformer.interop.checkpoint_files import read_tensors
from longformer.interop.convert import convert
from longformer.interop.convert_encoder import POSITIONS
from tests.interop.tokenizer_folders import byte_level

LENGTH, WINDOW = 128, 16


@pytest.fixture
def workplace(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a short model, a long one, labelled texts, a run file and an MLflow store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    Path("short").mkdir()
    byte_level(Path("short"))
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=265, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, type_vocab_size=1,
    )  # fmt: skip
    transformers.RobertaForMaskedLM(config).save_pretrained("short")
    convert(Path("short"), Path("long"), max_length=LENGTH, window=WINDOW)
    lines = [{"text": f"{'good' if n % 2 else 'bad'} film {n}", "label": "ab"[n % 2]} for n in range(60)]
    Path("texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = {
        "name": "first",
        "task": "sequence_classification",
        "model": {"source": "long"},
        "data": {"directory": "prepared", "source": "texts.jsonl"},
        "phases": [{"name": "p", "sequence_length": LENGTH, "learning_rate": 1e-3, "steps": 1, "batch_size": 2}],
    }
    Path("run.yaml").write_text(yaml.safe_dump(content))
    Path("runs").mkdir()
    shutil.copyfile(empty_store, "runs/mlflow.db")
    return tmp_path


def start_of(*overrides: str) -> tuple[dict, dict[str, torch.Tensor], str | None]:
    """Returns config.json and the tensors of what a run starts from, and which model it was made of."""
    config = load(Path("run.yaml"), list(overrides))
    shutil.rmtree("started", ignore_errors=True)
    paths = RunPaths(Path("started"))
    paths.root.mkdir()
    data = data_of(config).prepare()
    origin = bring_start_model(Run(paths, config), InputData(data.directory, data.fingerprint))
    settings = json.loads((paths.start_directory / "config.json").read_bytes())
    return settings, read_tensors(paths.start_directory), origin


def same(start: dict[str, torch.Tensor], model: dict[str, torch.Tensor]) -> bool:
    return start.keys() == model.keys() and all(torch.equal(start[name], model[name]) for name in model)


def test_a_long_source_stays_as_it_is_unless_the_run_file_asks_for_more(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = read_tensors(Path("long"))
    settings, start, origin = start_of()
    assert same(start, long)
    assert settings["attention_window"] == [WINDOW]
    assert origin == str(workplace / "long")
    settings, start, _ = start_of("model.max_length=200", "model.window=32")
    assert settings["attention_window"] == [32]
    assert torch.equal(start[POSITIONS][2 + LENGTH :], long[POSITIONS][2 : 2 + 200 - LENGTH])
    assert same(start_of("model.max_length=64", "phases.0.sequence_length=64")[1], long)
    settings, start, _ = start_of("model.source=short")
    assert (len(start[POSITIONS]), settings["attention_window"]) == (4096 + 2, [512])

    capsys.readouterr()
    assert main(["check", "run.yaml", "phases.0.sequence_length=200"]) == 2
    assert "but the model of model.source long reads 128 tokens; shorten" in capsys.readouterr().err
    assert main(["check", "run.yaml", "phases.0.sequence_length=200", "model.max_length=200"]) == 0
    assert main(["check", "run.yaml", "model.max_length=64"]) == 2
    assert "the model reads 3 to model.max_length (64) tokens" in capsys.readouterr().err


def test_a_registered_model_and_a_finished_run_are_sources_too(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "model.source=models:/tiny@champion"
    assert main(["check", "run.yaml", source]) == 2
    assert "there is no model tiny in" in capsys.readouterr().err
    assert main(["check", "run.yaml", "model.source=runs/first"]) == 2
    assert "model.source runs/first holds no model" in capsys.readouterr().err
    assert main(["register", "long", "--name", "tiny"]) == 0
    assert main(["promote", "tiny"]) == 0
    assert main(["check", "run.yaml", source]) == 0
    assert main(["check", "run.yaml", source, "phases.0.sequence_length=200"]) == 2
    assert "model.source models:/tiny@champion reads 128 tokens" in capsys.readouterr().err
    assert main(["check", "run.yaml", f"init={source.partition('=')[2]}"]) == 0
    assert main(["plan", "run.yaml", source, "--gpu", "h100"]) == 0
    assert main(["train", "run.yaml", source]) == 0
    first = Run.open(Path("runs/first"))
    assert first.paths.identity().start_model == "models:/tiny/1"
    assert same(read_tensors(first.paths.start_directory), read_tensors(Path("long")))
    shutil.rmtree("runs/mlflow-artifacts")
    shutil.rmtree(first.phase_directory(0))
    assert main(["resume", "runs/first"]) == 0

    capsys.readouterr()
    assert main(["check", "run.yaml", "model.source=runs/first"]) == 0
    settings, start, origin = start_of("model.source=runs/first")
    assert same(start, read_tensors(first.paths.export_directory))
    assert settings["id2label"] == {"0": "a", "1": "b"}
    # Outputs of other classes are not taken over.
    others = start_of("model.source=runs/first", "data.classes=[b, a]")[1]
    assert others.keys() == {name for name in start if not name.startswith("classifier")} < start.keys()
    assert origin == str(workplace / "runs" / "first")
