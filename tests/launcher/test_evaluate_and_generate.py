"""Claims about asking a trained model: the newest finished phase answers, and what cannot answer says why."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream
from launcher.cli import main
from launcher.runs.run import Run
from launcher.tasks.registry import task_of
from launcher.training.phase_result import commit_result
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.models.char_lm.model import CharacterLM
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.records import Progress


def finish_phase(run: Run, index: int, data: PreparedData, evaluation: dict[str, Any] | None = None) -> CharacterLM:
    """Commit an untrained model as the result of a phase, and return it."""
    config = run.config
    torch.manual_seed(index)
    model = CharacterLM(config.character_model(index, len(data.vocabulary))).eval()
    with torch.no_grad():  # far from uniform: evaluations of different phases must differ
        model.output.weight.mul_(1 + index)
    task = task_of(config, Path(data.location))
    commit_result(
        run.result_directory(index),
        write_model=lambda target: task.write_model(index, dict(model.named_parameters()), None, target),
        evaluation=evaluation or {},
        manifest=Manifest(
            phase=config.phases[index].name,
            phase_index=index,
            progress=Progress(),
            data={},
            ranks=2,
            zero_stage=2,
            precision="fp32",
            config_fingerprint=config.fingerprint(),
            versions={},
        ),
    )
    return model


def test_evaluate_judges_the_newest_finished_phase(
    created_run: Run, prepared: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_phase(created_run, 0, prepared)
    newest = finish_phase(created_run, 1, prepared)
    options = ["--split", "validation", "--sequence-length", "256", "--stride", "128", "--json"]
    assert main(["evaluate", str(created_run.paths.root), *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    stream = TokenStream(prepared.split("validation"))
    expected = evaluate_bits_per_character(
        newest, stream.read(0, len(stream)), sequence_length=256, stride=128, batch_size=4
    )
    assert answer["bits_per_character"] == pytest.approx(expected.bits, rel=1e-5)
    assert answer["scored"] == len(stream) - 1
    assert answer["split"] == "validation"
    assert Path(answer["model"]).parts[-3:] == ("02-medium", "result", "model")


def test_evaluate_refuses_data_that_the_run_was_not_trained_on(
    created_run: Run, prepared: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_phase(created_run, 0, prepared)
    identity = json.loads((created_run.paths.root / "identity.json").read_text())
    (created_run.paths.root / "identity.json").write_text(json.dumps(identity | {"data_fingerprint": "0" * 64}))
    assert main(["evaluate", str(created_run.paths.root)]) == 2
    assert "other data" in capsys.readouterr().err


def test_a_run_without_a_finished_phase_says_how_to_go_on(created_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["evaluate"], ["generate", "--prompt", "The "]):
        assert main([*command, str(created_run.paths.root)]) == 2
        assert "longformer resume" in capsys.readouterr().err


def test_a_damaged_result_is_not_used(
    created_run: Run, prepared: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_phase(created_run, 0, prepared)
    weights = created_run.result_directory(0) / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["evaluate", str(created_run.paths.root)]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_generate_writes_the_prompt_and_goes_on_the_same_from_run_and_model(
    created_run: Run, prepared: PreparedData, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    finish_phase(created_run, 0, prepared)
    model = shutil.copytree(created_run.result_directory(0) / "model", tmp_path / "copy")
    texts = []
    for source in (created_run.paths.root, model):
        assert main(["generate", str(source), "--prompt", "name: ", "--characters", "50", "--seed", "3"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("name: ")
    assert len(texts[0].encode()) >= len("name: ") + 50


@pytest.mark.parametrize(("prompt", "sentence"), [("", "the prompt is empty"), (None, "Missing option")])
def test_a_prompt_that_cannot_be_continued_is_refused(
    created_run: Run,
    prepared: PreparedData,
    capsys: pytest.CaptureFixture[str],
    prompt: str | None,
    sentence: str,
) -> None:
    finish_phase(created_run, 0, prepared)
    assert main(["generate", str(created_run.paths.root), *([] if prompt is None else ["--prompt", prompt])]) == 2
    assert sentence in capsys.readouterr().err


def test_a_prompt_with_characters_the_model_never_saw_is_refused(
    created_run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    CharacterLM(created_run.config.character_model(0, 2)).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vocabulary.json").write_text('{"format": "bytes", "symbols": [97, 98]}')
    assert main(["generate", str(tmp_path / "model"), "--prompt", "abc"]) == 2
    assert "byte 99" in capsys.readouterr().err


def test_a_vocabulary_of_other_data_is_refused(
    created_run: Run, prepared: PreparedData, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    finish_phase(created_run, 0, prepared)
    model = shutil.copytree(created_run.result_directory(0) / "model", tmp_path / "copy")
    (model / "vocabulary.json").write_text('{"format": "bytes", "symbols": [97, 98]}')
    assert main(["generate", str(model), "--prompt", "a"]) == 2
    assert "vocabulary.json lists 2" in capsys.readouterr().err
