"""Phases follow each other: weights always go on, the optimizer goes on or starts anew, as the run file says."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream
from launcher.backends.local.backend import LocalBackend
from launcher.config.load import load
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.training.phases import Status, run_phases
from launcher.training.signals import StopFlag
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.models.char_lm.model import CharacterLM
from longformer.training.checkpoints.manifest import Manifest, damage
from tests.faults.tiny_run import prepare_text

PHASE = {"learning_rate": 1e-2, "warmup_steps": 2, "batch_size": 4, "steps": 6, "sequence_length": 32}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_text(tmp_path_factory.mktemp("text"))


def train(directory: Path, text: PreparedData, phases: list[dict[str, Any]], *, ranks: int = 2, **sections: Any) -> Any:
    """Run the phases in `directory` and return the run directory and the losses."""
    content = {
        "name": "chain",
        "model": {"layers": 2, "hidden_size": 16, "heads": 2, "feedforward_size": 32},
        "data": {"recipe": "text", "source": str(Path(text.location).parent), "directory": text.location},
        "training": {"zero_stage": 2},
        "evaluation": {"sequence_length": 64, "stride": 32, "batch_size": 4, "limit_tokens": 700},
        "phases": [
            PHASE | {"name": f"phase{index}", "windows": [4, 8]} | changes for index, changes in enumerate(phases)
        ],
    }
    for name, section in sections.items():
        content[name] = content[name] | section  # type: ignore[operator]
    directory.mkdir(exist_ok=True)
    (directory / "run.yaml").write_text(yaml.safe_dump(content))
    config = load(directory / "run.yaml")
    run = Run(RunPaths(directory / "run"), config)
    with run.paths.locked() as lock:
        run.create(ranks=ranks, data_directory=Path(text.location), data_fingerprint=text.fingerprint)
        outcome = run_phases(run, LocalBackend(StopFlag(), lock, print), ranks=ranks, warn=print)
        assert outcome.status is Status.COMPLETED, outcome.message
    return run, [json.loads(line)["loss"] for line in run.paths.metrics_file.read_text().splitlines()]


def test_two_phases_that_keep_the_optimizer_are_one_long_phase(tmp_path: Path, text: PreparedData) -> None:
    """Same length, windows and learning rate; only the samples differ, so the first loss of phase two is compared
    with the loss of the first phase's model, and the second with what kept moments make of it."""
    kept_run, kept = train(tmp_path / "kept", text, [{}, {"optimizer": "keep", "warmup_steps": 0}])
    _, reset = train(tmp_path / "reset", text, [{}, {"optimizer": "reset", "warmup_steps": 0}])
    assert kept[:7] == reset[:7], "the weights go on either way"
    assert kept[7] != reset[7], "the optimizer does not"
    assert kept[7:] == pytest.approx(reset[7:], abs=0.5)
    records = [json.loads(line) for line in kept_run.paths.metrics_file.read_text().splitlines()]
    assert [record["global_step"] for record in records] == list(range(1, 13))
    assert [record["step"] for record in records] == [*range(1, 7), *range(1, 7)]
    assert records[-1]["tokens"] == 12 * 4 * 32


def test_kept_moments_are_those_of_the_phase_before(tmp_path: Path, text: PreparedData) -> None:
    run, _ = train(tmp_path, text, [{}, {"optimizer": "keep", "steps": 1, "learning_rate": 1e-30, "warmup_steps": 0}])
    before, after = (
        torch.load(
            next(run.checkpoints_directory(index).glob("step-*/state/*pp_rank_0*optim_states.pt")),
            weights_only=False,
        )["optimizer_state_dict"]["base_optimizer_state"]["state"][0]
        for index in (0, 1)
    )
    assert (before["step"], after["step"]) == (6, 7)
    gradient_share = after["exp_avg_sq"] - 0.999 * before["exp_avg_sq"]
    assert (gradient_share >= -1e-12).all()


def test_a_phase_changes_length_and_windows_and_its_result_says_so(tmp_path: Path, text: PreparedData) -> None:
    run, losses = train(
        tmp_path, text, [{}, {"sequence_length": 64, "windows": [16, 32], "steps": 4, "optimizer": "keep"}]
    )
    assert len(losses) == 10
    assert all(math.isfinite(loss) for loss in losses)
    for index, windows in enumerate([[4, 8], [16, 32]]):
        result = run.result_directory(index)
        assert damage(result) is None
        assert json.loads((result / "model" / "config.json").read_text())["windows"] == windows
        assert (result / "model" / "vocabulary.json").read_bytes() == Path(
            text.location, "vocabulary.json"
        ).read_bytes()
    assert Manifest.read(run.result_directory(1)).progress.global_step == 10


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_the_evaluation_is_that_of_the_saved_model(zero_stage: int, tmp_path: Path, text: PreparedData) -> None:
    run, _ = train(tmp_path, text, [{}], training={"zero_stage": zero_stage})
    result = run.result_directory(0)
    evaluation = json.loads((result / "evaluation.json").read_text())
    model = CharacterLM.from_pretrained(result / "model")
    for split, limit in (("validation", 700), ("test", None)):
        stream = TokenStream(text.split(split))
        expected = evaluate_bits_per_character(
            model, stream.read(0, limit or len(stream)), sequence_length=64, stride=32, batch_size=4
        )
        assert evaluation[split]["bits_per_character"] == pytest.approx(expected.bits, abs=1e-5)
        assert evaluation[split]["scored"] == expected.scored
    assert (evaluation["steps"], evaluation["tokens"]) == (6, 6 * 4 * 32)
    assert evaluation["seconds"] > 0
    assert evaluation["peak_memory_bytes"] > 50e6


def test_one_rank_and_two_see_the_same_batches_and_losses(tmp_path: Path, text: PreparedData) -> None:
    _, one = train(tmp_path / "one", text, [{}, {"optimizer": "keep"}], ranks=1)
    _, two = train(tmp_path / "two", text, [{}, {"optimizer": "keep"}], ranks=2)
    _, accumulated = train(tmp_path / "accumulated", text, [{"micro_batch_size": 1}, {"optimizer": "keep"}], ranks=2)
    assert two == pytest.approx(one, abs=1e-4)
    assert accumulated == pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_activation_checkpointing_changes_no_loss(zero_stage: int, tmp_path: Path, text: PreparedData) -> None:
    model = {"dropout": 0.1}
    _, kept = train(tmp_path / "kept", text, [{}], model=model, training={"zero_stage": zero_stage})
    recomputing = {"zero_stage": zero_stage, "activation_checkpointing": True}
    _, recomputed = train(tmp_path / "recomputed", text, [{}], model=model, training=recomputing)
    assert recomputed == pytest.approx(kept, abs=1e-5)
