"""Claims about the registry of models: what is registered, promoted and found again, on a real MLflow store."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from launcher.config.load import load
from launcher.config.mlflow_address import ADDRESS_VARIABLE
from launcher.config.run_config import RunConfig
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.data import InputData
from launcher.tracking.callbacks import start_run
from launcher.tracking.registry.models import ModelAddress, ModelRegistry
from launcher.training.start_model import bring_start_model
from longformer.errors import LongformerError
from longformer.models.char_lm.model import CharacterLM
from tests.launcher.example_run import QUICKSTART, SMALL
from tests.launcher.test_evaluate_and_generate import finish_phase

SCORES = {
    "validation": {"bits_per_character": 2.5},
    "test": {"bits_per_character": 2.75, "stride": 512},
    "seconds": 9.0,
}
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command and returns its exit code and what it said."""

    def run(*arguments: object) -> tuple[int, str]:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out if code == 0 else said.err

    return run


@pytest.fixture
def run(created_run: Run, prepared: PreparedData, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in ./runs with one finished phase, beside an empty MLflow store."""
    runs = created_run.paths.root.parent
    finish_phase(created_run, 0, prepared, SCORES)
    shutil.copyfile(empty_store, runs / "mlflow.db")
    monkeypatch.chdir(runs.parent)
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    return created_run.paths.root


def store(run: Path) -> str:
    return f"sqlite:///{run.parent / 'mlflow.db'}"


def test_registered_version_holds_the_scores_of_the_run_and_those_given(run: Path, command: Command) -> None:
    code, said = command("register", run, "--name", "letters", "--metric", "rouge2=0.25")
    assert code == 0
    assert "letters version 1 is registered in" in said
    found = ModelRegistry(store(run)).newest("letters")
    assert found.metrics == {
        "validation/bits_per_character": 2.5,
        "test/bits_per_character": 2.75,
        "test/stride": 512.0,
        "seconds": 9.0,
        "rouge2": 0.25,
    }
    assert command("register", run, "--name", "letters")[0] == 0
    assert ModelRegistry(store(run)).newest("letters").version == "2"


def test_folders_are_called_as_people_call_them(
    created_run: Run, prepared: PreparedData, empty_store: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_phase(created_run, 0, prepared, SCORES)
    runs = created_run.paths.root.parent.parent / "a b%20c?d=#e&f'g" / "runs"
    shutil.copytree(created_run.paths.root.parent, runs)
    shutil.copyfile(empty_store, runs / "mlflow.db")
    start_run(Run.open(runs / created_run.paths.root.name))
    before = sorted(runs.parent.parent.rglob("mlflow.db"))
    monkeypatch.chdir(runs.parent)
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    code, said = command("register", f"runs/{created_run.paths.root.name}", "--name", "letters")
    assert code == 0
    # What is printed is for a shell.
    variable, *serving = shlex.split(said.splitlines()[-1].removeprefix("serve it: "))
    assert serving[:3] == ["mlflow", "models", "serve"]
    monkeypatch.setenv(*variable.split("=", 1))
    assert command("promote", "letters")[0] == 0
    assert command("generate", "models:/letters@champion", "--prompt", "a", "--characters", "2")[0] == 0
    assert sorted(runs.parent.parent.rglob("mlflow.db")) == before
    assert Run.open(runs / created_run.paths.root.name).paths.identity().mlflow_run_id is not None


def test_store_that_cannot_be_opened_is_one_sentence_at_once(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("runs", "runs/mlflow.db/other.db"):
        monkeypatch.setenv(ADDRESS_VARIABLE, f"sqlite:///{path}")
        code, said = command("register", run, "--name", "letters")
        assert (code, said) == (
            1,
            f"error: the MLflow store {path} cannot be written: name another in {ADDRESS_VARIABLE}\n",
        )
    monkeypatch.setenv(ADDRESS_VARIABLE, "sqlite:///runs/broken.db")
    (run.parent / "broken.db").write_text("no database at all, but some text that is long enough" * 99)
    code, said = command("register", run, "--name", "letters")
    assert code == 1
    assert said.startswith("error: sqlite:///runs/broken.db: ")
    assert said.count("\n") == 1


def test_registered_model_brings_code_signature_example_and_pinned_requirements_but_no_pickle(
    run: Path, command: Command
) -> None:
    assert command("register", run, "--name", "letters")[0] == 0
    (package,) = (run.parent / "mlflow-artifacts").glob("models/*/artifacts")
    requirements = (package / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in requirements} == {
        "mlflow", "torch", "tokenizers", "safetensors", "numpy", "pandas"
    }  # fmt: skip
    assert all("==" in line and "+" not in line for line in requirements)
    assert json.loads((package / "input_example.json").read_text())["columns"] == ["text"]
    assert "bits_per_character" in (package / "MLmodel").read_text()
    assert (package / "code" / "longformer" / "models" / "char_lm" / "model.py").is_file()
    assert not [path for path in package.rglob("*") if path.suffix in (".pkl", ".pyc", ".bin")]


def test_promotion_needs_every_condition_and_no_worse_a_metric_than_the_holder(run: Path, command: Command) -> None:
    for score in (0.2, 0.25, 0.22):
        assert command("register", run, "--name", "letters", "--metric", f"rouge2={score}")[0] == 0
    promote = ("promote", "letters", "--version")
    assert command(*promote, 1, "--if", "rouge2 >= 0.19", "--if", "bits_per_character < 2.8") == (
        0,
        "letters version 1 is champion now: models:/letters@champion\n",
    )
    code, said = command(*promote, 2, "--if", "rouge2 >= 0.19", "--if", "bits_per_character <= 2.5")
    assert (code, said) == (
        1,
        "error: letters version 2 does not become champion: its bits_per_character is 2.75, not <= 2.5\n",
    )
    assert ModelRegistry(store(run)).find(ModelAddress("letters", "champion", None)).version == "1"
    assert command(*promote, 2, "--if", "rouge2 >= 0.19")[1].endswith(
        "version 2 is champion now, before it was version 1: models:/letters@champion\n"
    )
    code, said = command("promote", "letters", "--if", "rouge2 >= 0.19")
    assert code == 1
    assert "its rouge2 is 0.22, worse than the 0.25 of letters version 2, which is champion now" in said
    assert command("promote", "letters", "--if", "rouge2 >= 0.19", "--even-if-worse")[0] == 0
    assert ModelRegistry(store(run)).find(ModelAddress("letters", "champion", None)).version == "3"


def test_what_is_not_in_the_registry_is_said_in_one_sentence_with_the_remedy(run: Path, command: Command) -> None:
    assert command("register", run, "--name", "letters")[0] == 0
    cases = [
        ("promote words", "there is no model words in .*`longformer register RUN --name words` makes it"),
        ("promote letters --version 7", "letters has no version 7; the newest is 1"),
        ("promote letters --if rouge2>1", r"has no metric rouge2 \(stored: seconds, .*--metric rouge2=VALUE"),
        ("generate models:/letters@best --prompt a", "has no alias best .*it has: none.*promote letters --alias best"),
        ("generate models:/letters --prompt a", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("register nowhere --name x", "nowhere does not exist: give a run directory or the folder of a model"),
        ("register runs --name x", "runs is neither a run directory .* nor a model"),
        ("register runs/quickstart --name x --metric a=b", "--metric a=b: write NAME=VALUE"),
        ("register runs/quickstart --name a/b", "Invalid model name 'a/b'"),
    ]
    for words, sentence in cases:
        code, said = command(*words.split())
        assert code in (1, 2)
        assert re.search(sentence, said), said
        assert said.count("\n") == 1


def test_registered_model_continues_a_text_as_the_run_does(run: Path, command: Command) -> None:
    assert command("register", run, "--name", "letters")[0] == 0
    assert command("promote", "letters")[0] == 0
    options = ("--prompt", "name: ", "--characters", "20", "--temperature", "0")
    written = command("generate", run, *options)
    assert written[0] == 0
    assert command("generate", "models:/letters@champion", *options) == written
    assert command("generate", "models:/letters/1", *options) == written


def start_of(paths: RunPaths, config: RunConfig, data: PreparedData) -> str | None:
    return bring_start_model(Run(paths, config), InputData(Path(data.location), data.fingerprint))


def test_run_with_init_keeps_the_weights_and_the_version_its_alias_meant(
    run: Path, command: Command, prepared: PreparedData
) -> None:
    assert command("register", run, "--name", "letters")[0] == 0
    assert command("promote", "letters")[0] == 0
    config = load(QUICKSTART, [*SMALL, "init=models:/letters@champion"])
    new = RunPaths(run.parent / "new")
    new.root.mkdir()
    assert start_of(new, config, prepared) == "models:/letters/1"
    kept = CharacterLM.from_pretrained(new.start_directory).state_dict()
    trained = CharacterLM.from_pretrained(Run.open(run).result_directory(0) / "model").state_dict()
    assert kept.keys() == trained.keys()
    assert all(torch.equal(kept[name], trained[name]) for name in kept)


def test_model_of_another_shape_or_vocabulary_cannot_be_the_start(run: Path, prepared: PreparedData) -> None:
    new = RunPaths(run.parent / "new")
    other_shape = load(QUICKSTART, [*SMALL, f"init={run}", "model.feedforward_size=128"])
    with pytest.raises(LongformerError, match=r"expand.weight has shape .* instead of"):
        start_of(new, other_shape, prepared)
    model = run.parent / "other"
    shutil.copytree(Run.open(run).result_directory(0) / "model", model)
    vocabulary = json.loads((model / "vocabulary.json").read_text())
    vocabulary["symbols"].reverse()
    (model / "vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(LongformerError, match="reads other characters than"):
        start_of(new, load(QUICKSTART, [*SMALL, f"init={model}"]), prepared)
    assert not new.start_directory.exists()
