"""The best step of a phase is kept, whatever is killed and wherever the run goes on; so is the step where it stops."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from launcher.reporting.run_report import best_steps, validation_curves
from launcher.training.phases import Status
from longformer.files import read_json
from tests.faults.holding import EVALUATION
from tests.faults.test_elastic import go_on_with
from tests.faults.tiny_run import TinyRun, kill_all_ranks, rank_processes, tiny_config

Runs = Callable[..., TinyRun]
EVERY = 3
OPTIONS: dict[str, Any] = {
    # Steps too large to get better for long.
    "learning": {
        "learning_rate": 0.2,
        "evaluate_every": {"steps": EVERY},
        "best": {"metric": "bits_per_character", "patience": 2},
    },
    "steps": (40, 20),
    "checkpoints_kept": 1,
}


def results(run: TinyRun) -> list[dict[str, Any]]:
    files = sorted(run.run.paths.root.glob("phases/*/result/evaluation.json"))
    return [{name: read_json(file).get(name) for name in ("steps", "result_step", "validation")} for file in files]


def check_same(run: TinyRun, expected: TinyRun) -> None:
    assert run.losses() == expected.losses()
    assert run.evaluated() == expected.evaluated()
    assert results(run) == results(expected)
    assert run.evaluations() == expected.evaluations()


def test_a_phase_ends_when_patience_does_with_the_best_step_as_its_result(undisturbed: Runs) -> None:
    run = undisturbed(**OPTIONS)
    for index, result in enumerate(results(run)):
        lines = [line for line in run.evaluated() if line["phase_index"] == index]
        scores = {line["step"]: line["validation"]["bits_per_character"] for line in lines}
        best = min(scores, key=lambda step: scores[step])
        assert list(scores) == list(range(EVERY, result["steps"] + 1, EVERY))
        assert result["steps"] == best + 2 * EVERY < OPTIONS["steps"][index], "not an early stop"
        assert result["result_step"] == best
        assert result["validation"]["bits_per_character"] == scores[best]
        assert run.checkpoints(index) == [f"step-{step:08d}" for step in (best, result["steps"])]
        sentence = best_steps(run.run)[index]
        assert f"is that of step {best}, the best by bits_per_character" in sentence
        assert f"ended after step {result['steps']} of {OPTIONS['steps'][index]}" in sentence
    assert len(validation_curves(run.run)) == 1
    assert run.run.config.phases[1].optimizer == "keep"
    assert main(["checkpoint", "prune", str(run.run.paths.root)]) == 0
    assert len(run.checkpoints(0)) == len(run.checkpoints(1)) == 2


@pytest.mark.parametrize("zero_stage", [2, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (0, 1, 3))])
def test_a_run_killed_in_evaluations_and_beside_them_has_the_same_best_and_stops_at_the_same_step(
    zero_stage: int, new_run: Runs, undisturbed: Runs
) -> None:
    expected = undisturbed(**OPTIONS, zero_stage=zero_stage)
    run = new_run(**OPTIONS, zero_stage=zero_stage)
    steps = results(expected)[0]["steps"]
    # In the second evaluation; before the last one of the phase; in that of its best step; and in the next phase.
    for place in (f"{EVALUATION} 2", steps - 1, f"{EVALUATION} 2", f"{EVALUATION} 1", steps + EVERY + 1):
        with run.disturbed_at(place, kill_all_ranks):
            assert run.go().status is Status.FAILED, place
    assert run.go().status is Status.COMPLETED
    check_same(run, expected)


def test_a_run_asked_to_stop_in_an_evaluation_leaves_it_and_evaluates_again(new_run: Runs, undisturbed: Runs) -> None:
    run = new_run(**OPTIONS)

    def terminate() -> None:
        for rank in rank_processes():
            rank.terminate()

    with run.disturbed_at(f"{EVALUATION} 2", terminate):
        assert run.go().status is Status.STOPPED
    assert len(run.evaluated()) == 1
    assert run.go().status is Status.COMPLETED
    check_same(run, undisturbed(**OPTIONS))


def test_evaluations_change_no_loss(undisturbed: Runs) -> None:
    learning = {"learning_rate": 0.2}
    without = undisturbed(learning=learning)
    evaluated = undisturbed(learning=learning | {"evaluate_every": {"steps": EVERY}})
    assert evaluated.losses() == without.losses()
    assert evaluated.evaluations() == without.evaluations()
    assert len(evaluated.evaluated()) == 5 + 4


@pytest.mark.slow
def test_other_ranks_and_zero_stages_find_the_same_best_and_stop_at_the_same_step(
    tmp_path: Path, text: PreparedData
) -> None:
    # Steps so large let rounding, which differs between numbers of ranks, grow fast: smaller ones and less patience.
    learning = OPTIONS["learning"] | {"learning_rate": 0.06, "best": {"metric": "bits_per_character", "patience": 1}}
    options = OPTIONS | {"learning": learning, "dropout": 0.0, "batch_size": 12}

    def config(zero_stage: int) -> Any:
        return tiny_config(tmp_path, text, zero_stage=zero_stage, **options)

    expected = TinyRun(tmp_path / "expected", config(1), text)
    assert expected.go().status is Status.COMPLETED
    run = TinyRun(tmp_path / "run", config(1), text)
    for ranks, zero_stage in [(2, 1), (1, 3), (4, 2)]:
        go_on_with(run, ranks, config(zero_stage), text)
        with run.disturbed_at(f"{EVALUATION} 2", kill_all_ranks):
            assert run.go().status is Status.FAILED
    go_on_with(run, 3, config(0), text)
    assert run.go().status is Status.COMPLETED
    assert [step for step, _ in run.losses()] == [step for step, _ in expected.losses()]
    assert [loss for _, loss in run.losses()] == pytest.approx([loss for _, loss in expected.losses()], rel=1e-4)
    for found, wanted in zip(results(run), results(expected), strict=True):
        assert (found["steps"], found["result_step"]) == (wanted["steps"], wanted["result_step"])


def test_a_damaged_best_checkpoint_is_passed_over_with_those_that_stand_on_it(new_run: Runs, undisturbed: Runs) -> None:
    run = new_run(**OPTIONS)
    steps = results(undisturbed(**OPTIONS))[0]["steps"]
    with run.disturbed_at(steps - 1, kill_all_ranks):
        assert run.go().status is Status.FAILED
    best, newest = run.checkpoints()
    victim = run.run.checkpoints_directory(0) / best / "state" / "mp_rank_00_model_states.pt"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert run.go().status is Status.COMPLETED
    assert [best in warning for warning in run.warnings] == [True, True]
    assert newest > best
    check_same(run, undisturbed(**OPTIONS))


def test_the_best_checkpoint_comes_back_from_the_copies_too(tmp_path: Path, new_run: Runs, undisturbed: Runs) -> None:
    run = new_run(**OPTIONS, checkpoint_copies=(tmp_path / "copies").as_uri())
    steps = results(undisturbed(**OPTIONS))[0]["steps"]
    with run.disturbed_at(steps - 1, kill_all_ranks):
        assert run.go().status is Status.FAILED
    kept = run.checkpoints()
    assert len(kept) == 2
    assert sorted(path.name for path in tmp_path.glob("copies/tiny/01-short/step-*")) == kept
    shutil.rmtree(run.run.paths.root / "phases")
    assert run.go().status is Status.COMPLETED
    assert run.warnings == []
    check_same(run, undisturbed(**OPTIONS))
