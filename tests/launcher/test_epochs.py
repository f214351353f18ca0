"""A phase and its evaluations may be given in epochs: every command makes the same steps of them; a run keeps those."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launcher.cli import main
from launcher.config.load import load
from launcher.config.run_config import RunConfig, TaskWords
from launcher.config.sections import PhaseSection
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.registry import data_of
from launcher.training.evaluations import PhaseEvaluations
from longformer.errors import LongformerError
from longformer.training.records import Progress

TEXT = 2_000
LENGTH, BATCH = 16, 4


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 1.5 epochs of a text that is not prepared yet."""
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("abcdefgh " * (TEXT // 9))
    content = {
        "name": "short",
        "model": {"layers": 1, "hidden_size": 8, "heads": 2, "feedforward_size": 8},
        "data": {"recipe": "text", "source": "words.txt", "directory": "prepared"},
        "phases": [
            {"name": "only", "sequence_length": LENGTH, "windows": [4], "learning_rate": 1e-2, "batch_size": BATCH,
             "epochs": 1.5},
        ],
        "evaluation": {"sequence_length": 32, "stride": 16, "limit_tokens": 64},
    }  # fmt: skip
    Path("run.yaml").write_text(yaml.safe_dump(content))
    return Path("run.yaml")


@given(st.integers(1, 1000), st.integers(0, 2), st.integers(1, 10_000), st.integers(1, 64))
def test_steps_are_the_batches_that_the_epochs_fill_the_last_one_counted(
    digits: int, places: int, samples: int, batch_size: int
) -> None:
    phase = PhaseSection(
        name="any", sequence_length=1, learning_rate=1, batch_size=batch_size, epochs=digits / 10**places
    )
    steps = phase.in_steps(samples).total_steps
    wanted = Fraction(digits, 10**places) * samples
    assert (steps - 1) * batch_size < wanted <= steps * batch_size


def test_check_plan_train_and_resume_make_the_same_steps_of_epochs(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(run_file)]) == 0
    assert "1 phases, 1.5 epochs" in capsys.readouterr().out
    assert main(["plan", str(run_file)]) == 2
    assert "phases[0] counts epochs" in capsys.readouterr().err

    assert main(["train", str(run_file)]) == 0
    run = Run.open(Path("runs/short"))
    steps = run.config.phases[0].total_steps
    samples = data_of(run.config).sequences(0).per_epoch
    assert samples > 50
    assert (steps - 1) * BATCH < 1.5 * samples <= steps * BATCH
    assert len(run.paths.metrics_file.read_text().splitlines()) == steps
    capsys.readouterr()

    assert main(["check", str(run_file)]) == 0
    assert f"1 phases, {steps} steps" in capsys.readouterr().out
    assert main(["plan", str(run_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["phases"][0]["steps"] == steps
    assert main(["train", str(run_file)]) == 0, "the same command is of the same run"
    assert main(["resume", "runs/short"]) == 0


def test_evaluations_in_epochs_become_steps_too(run_file: Path) -> None:
    overrides = ["phases.0.evaluate_every={epochs: 0.5}", "phases.0.best={metric: bits_per_character}"]
    data = data_of(load(run_file, overrides))
    data.prepare()
    phase = data.in_steps().phases[0]
    assert phase.evaluate_every_steps == -(-data.sequences(0).per_epoch // (2 * BATCH))


class TaskThatNamesNoMetrics(CharacterRun):
    """Leaves it to the run file which score is the best."""

    @property
    def words(self) -> TaskWords:
        return replace(super().words, metrics=None)


def test_a_metric_that_no_evaluation_has_ends_the_first_one_where_the_task_names_none(
    run_file: Path, tmp_path: Path
) -> None:
    overrides = ["phases.0.evaluate_every={steps: 2}", "phases.0.best={metric: bits_per_character, mode: min}"]
    config = load(run_file, overrides)

    def first_score(config: RunConfig) -> float | None:
        run = Run(RunPaths(tmp_path), config)
        evaluations = PhaseEvaluations(run, 0, lambda: Evaluation({"bits": 1.0, "language": "en"}), writes=False)
        return evaluations.within().evaluate(Progress(step=2))

    assert first_score(config) != first_score(config), "one of its own without a value is not a number"
    with pytest.raises(LongformerError, match=r"^phases\[0\].best.metric is 'bits_per_character', .*bits"):
        first_score(TaskThatNamesNoMetrics.model_validate(config.model_dump()))


def test_a_warm_up_longer_than_the_epochs_is_refused(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["phases.0.warmup_steps=1000"]
    data_of(load(run_file, overrides)).prepare()
    assert main(["check", str(run_file), *overrides]) == 2
    assert "warmup_steps is 1000, but 1.5 epochs of" in capsys.readouterr().err
    with pytest.raises(LongformerError, match="warmup_steps is 1000"):
        data_of(load(run_file, overrides)).in_steps()
