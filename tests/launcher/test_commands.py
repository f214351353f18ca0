"""The command line as a person uses it: fast help, one sentence for what is wrong, the right exit code."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_run import QUICKSTART, SHIPPED
from safetensors.numpy import save_file

from data_pipeline.shards.prepared import PreparedData
from data_pipeline.tokenizers.subword import train_tokenizer
from launcher.cli import COMMANDS, main
from launcher.config.load import load
from launcher.tasks.masked_lm.config import MaskedLMRun

RUN_FILES = sorted(SHIPPED.glob("*.yaml"))


HEAVY = (
    "torch",
    "mlflow",
    "deepspeed",
    "matplotlib",
    "pandas",
    "pyarrow",
    "ray",
    "scipy",
    "sqlalchemy",
    "transformers",
)


def imports_of(*arguments: str) -> set[str]:
    """Return all modules that `longformer ARGUMENTS` imports."""
    program = "import sys; from launcher.cli import main; main(sys.argv[1:]); print('|', *sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    ).stdout
    return set(output.rsplit("|", 1)[1].split())


def check_arguments(path: Path, folder: Path) -> list[str]:
    """Return the arguments with which a shipped run file passes `check`, with its data and model made in a folder."""
    overrides = [f"data.directory={folder / 'absent'}"]
    config = load(path)
    recipe = getattr(config.data, "recipe", None)
    source = folder / "source.jsonl"
    record = {"document": "text", "summary": "text", "text": "text", "label": 1, "id": 1}
    record |= {
        "article": "text",
        "abstract": "text",
        "article_id": "1",
        "article_text": ["text"],
        "abstract_text": ["text"],
        "tokens": ["text"],
        "clusters": [],
        "words": ["text"],
        "labels": ["O"],
        "supports": ["text"],
        "query": "text",
        "candidates": ["text", "label"],
        "answer": "text",
        "id": "1",
        "context": "text",
        "question": "text",
        "answers": ["text"],
        "paragraphs": [{"paragraph_text": "text"}],
        "answer_aliases": [],
    }
    source.write_text(json.dumps(record))
    if recipe is not None:
        source.write_text({"enwik8": "<mediawiki", "text8": ""}.get(recipe, "") + "text " * 99)
    if isinstance(config, MaskedLMRun):
        overrides += [f"data.sources.{index}.path={source}" for index in range(len(config.data.sources))]
    elif path.stem != "quickstart":
        if path.stem.startswith("hyperpartisan"):
            source = write_hyperpartisan(folder)
        if path.stem.startswith("triviaqa"):
            source = write_triviaqa(folder)
        if path.stem.startswith("hotpotqa"):
            source.write_text(json.dumps({**record, "supporting_facts": [], "context": [["text", ["text"]]]}))
            overrides.append("data.selected=null")
        overrides.append(f"data.source={source}")
    if config.task != "characters":
        model = folder / "model"
        model.mkdir()
        family = "bart" if config.task == "summarization" else "roberta"
        positions = 512 if family == "bart" else 66
        shape = {"vocab_size": 300, "hidden_size": 8, "max_position_embeddings": positions}
        (model / "config.json").write_text(json.dumps({"model_type": family, **shape}))
        save_file({"lm_head.bias": np.zeros(300)}, model / "model.safetensors")
        train_tokenizer(["some text"], vocabulary_size=261).save(model / "tokenizer.json")
        overrides.append(f"model.source={model}")
    return ["check", str(path), *overrides]


def write_triviaqa(folder: Path) -> Path:
    """Writes what the recipes for TriviaQA read, a question with a document, and returns its folder."""
    source = folder / "triviaqa"
    for name in ("qa", "evidence/wikipedia"):
        (source / name).mkdir(parents=True)
    (source / "evidence" / "wikipedia" / "page.txt").write_text("text")
    question = {"QuestionId": "1", "Question": "text", "Answer": {"NormalizedAliases": ["text"]}}
    data = {"Data": [{**question, "EntityPages": [{"Filename": "page.txt"}]}]}
    for split in ("train", "dev"):
        (source / "qa" / f"wikipedia-{split}.json").write_text(json.dumps(data))
    return source


def write_hyperpartisan(folder: Path) -> Path:
    """Writes what the recipes for Hyperpartisan read, an article for each split, and returns its folder."""
    source = folder / "hyperpartisan"
    source.mkdir()
    articles = {number: f'<article id="{number:07}"' for number in range(3)}
    for name, end in {"articles": ">text</article>", "ground-truth": ' hyperpartisan="true"/>'}.items():
        content = "".join(f"{begin}{end}" for begin in articles.values())
        (source / f"{name}-training.xml").write_text(f"<articles>{content}</articles>")
    (source / "hp-splits.json").write_text('{"train": [0], "dev": [1], "test": [2]}')
    return source


def test_help_lists_every_command_without_importing_anything_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in COMMANDS)
    for option in ("--help", "--version"):
        imported = imports_of(option)
        assert not imported & {*HEAVY, "numpy", "pydantic"}
        assert len(imported) < 450


@pytest.mark.parametrize(
    "name",
    [
        "quickstart",
        "mlm_antibodies",
        "imdb_small",
        "led_sumpubmed_small",
        "litbank_minilm",
        "wikihop_choice_small",
        "wikihop_minilm",
    ],
)
def test_check_of_every_task_imports_little(name: str, tmp_path: Path) -> None:
    imported = imports_of(*check_arguments(SHIPPED / f"{name}.yaml", tmp_path))
    assert not imported & set(HEAVY)
    assert len(imported) < 700


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert "Usage: longformer" in capsys.readouterr().out


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_every_shipped_run_file_passes_check(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(check_arguments(path, tmp_path)) == 0
    assert f"{path} is valid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trane"], "No such command 'trane'. Did you mean 'train'?"),
        (["check"], "Missing argument 'RUN.yaml'."),
        (["check", "gone.yaml"], "gone.yaml: there is no such file"),
        (["check", str(QUICKSTART), "phases.0.stepz=1"], "phases[0].stepz is not a known key (did you mean steps?)"),
        (["check", str(QUICKSTART), "data.recipe=text", "data.source=gone.txt"], "data.source gone.txt does not exist"),
        (["check", str(QUICKSTART), "--jsn"], "No such option: --jsn"),
        (["plan", str(QUICKSTART), "--ranks", "3"], "batch_size 16 cannot be divided over 3 ranks"),
        (["ui", "gone"], "gone holds no tracked runs"),
        (["ui", "--uri", "http://host:5000"], "http://host:5000 is a server with pages of its own"),
    ],
)
def test_bad_input_is_one_error_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert sentence in captured.err
    assert len(captured.err.splitlines()) == 1


def test_full_disk_is_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "launcher.cli", "check", QUICKSTART, f"data.directory={tmp_path / 'absent'}"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_a_place_that_cannot_be_written_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/models/long")

    monkeypatch.setattr("launcher.commands.check.load", refused)
    assert main(["check", str(QUICKSTART)]) == 1
    said = capsys.readouterr().err
    assert said == "error: /models/long: Read-only file system; choose a place that this user may write to\n"


def test_error_reaches_the_shell_without_a_traceback(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("longformer"), "check", tmp_path / "gone.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TERM": "dumb"}, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'gone.yaml'}: there is no such file\n"


def test_empty_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    arguments = ["data.recipe=text", f"data.source={tmp_path / 'empty'}", f"data.directory={tmp_path / 'absent'}"]
    assert main(["check", str(QUICKSTART), *arguments]) == 2
    assert "is empty; name another file" in capsys.readouterr().err


def check_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    code = main(["check", str(QUICKSTART), *arguments, "--json"])
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["valid"] == (code == 0)
    return outcome


def test_check_as_json_tells_problems_and_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = f"data.directory={tmp_path / 'absent'}"
    good = check_json(capsys, absent, "phases.0.windows.3=129")
    assert good["notes"] == [
        f"{tmp_path / 'absent'} does not exist yet: it will be prepared when training starts",
        "phases[0]: the longest window (129) is longer than the sequences (128)",
    ]
    bad = check_json(capsys, absent, "seed=x", "model.dropout=7")
    assert len(bad["problems"]) == 2


def test_check_counts_the_samples_of_prepared_text(prepared: PreparedData, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["data.recipe=text", f"data.source={SHIPPED}", f"data.directory={prepared.location}"]
    tokens = prepared.tokens("train")
    length = (tokens - 1) // 16
    enough = check_json(capsys, *data, f"phases.2.sequence_length={length}")
    assert enough["problems"] == []
    assert any("no character is scored with full context" in note for note in enough["notes"])
    too_few = check_json(capsys, *data, f"phases.2.sequence_length={length + 1}")
    assert too_few["problems"][0].startswith(
        f"phases[2]: the training text of {tokens:,} characters gives 15 sequences"
    )
    needed = 16 * (length + 1) + 1
    assert too_few["problems"][0].endswith(
        f"use at least {needed:,} characters or sequences of at most {length:,} or a batch of at most 15"
    )


def test_check_refuses_data_of_another_recipe(prepared: PreparedData, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = check_json(capsys, f"data.directory={prepared.location}")
    assert "already holds text (version" in outcome["problems"][0]
    assert "not python_library" in outcome["problems"][0]


def test_configuration_reference_is_current() -> None:
    from launcher.commands.config_reference import PAGE, reference

    assert PAGE.read_text() == reference()
