"""A run goes on wherever there are machines: with other numbers of ranks and other ZeRO stages, on the same samples."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from launcher.config.run_config import RunConfig
from launcher.training.phases import Status
from tests.faults.tiny_run import STEPS, TinyRun, kill_all_ranks, tiny_config


@pytest.mark.slow
def test_a_run_killed_and_resumed_on_2_1_4_and_3_ranks_and_other_zero_stages_follows_the_undisturbed_losses(
    tmp_path: Path, text: PreparedData
) -> None:
    def config(zero_stage: int) -> RunConfig:
        # Without dropout: every rank draws its own, so it differs with their number by nature.
        return tiny_config(tmp_path, text, zero_stage=zero_stage, dropout=0.0, batch_size=12)

    expected = TinyRun(tmp_path / "expected", config(1), text)
    assert expected.go().status is Status.COMPLETED

    run = TinyRun(tmp_path / "run", config(1), text)
    for ranks, zero_stage, until in [(2, 1, 6), (1, 3, 10), (4, 2, STEPS[0] + 6)]:
        go_on_with(run, ranks, config(zero_stage), text)
        with run.disturbed_at(until, kill_all_ranks):
            assert run.go().status is Status.FAILED
    go_on_with(run, 3, config(0), text)
    assert run.go().status is Status.COMPLETED

    assert [step for step, _ in run.losses()] == list(range(1, sum(STEPS) + 1))
    assert [loss for _, loss in run.losses()] == pytest.approx([loss for _, loss in expected.losses()], rel=1e-3)
    assert run.warnings == []


def go_on_with(run: TinyRun, ranks: int, config: RunConfig, data: PreparedData) -> None:
    run.run = run.run.continued_with(config, ranks=ranks, data_fingerprint=data.fingerprint)
    run.ranks = ranks


@pytest.mark.parametrize("in_background", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_run_that_lost_its_disk_goes_on_from_the_copies_of_its_checkpoints(
    in_background: bool, tmp_path: Path, new_run: Callable[..., TinyRun], undisturbed: Callable[..., TinyRun]
) -> None:
    copies = tmp_path / "copies"
    run = new_run(checkpoint_copies=copies.as_uri(), checkpoint_in_background=in_background)
    with run.disturbed_at(STEPS[0] - 1, kill_all_ranks):
        assert run.go().status is Status.FAILED
    # In the background a run may be killed before its newest checkpoint is copied.
    copied = sorted(path.parent.name for path in copies.glob("tiny/01-short/*/manifest.json"))
    assert len(copied) > 1
    shutil.rmtree(run.run.paths.root / "phases")
    newest = copies / "tiny" / "01-short" / copied[-1] / "state" / "mp_rank_00_model_states.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert run.go().status is Status.COMPLETED
    (warning,) = run.warnings
    assert copied[-1] in warning
    assert run.losses() == undisturbed().losses()


def test_a_storage_that_takes_no_copies_costs_no_step(
    new_run: Callable[..., TinyRun], undisturbed: Callable[..., TinyRun]
) -> None:
    run = new_run(checkpoint_copies="/proc/no-such-place")
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed().losses()
    assert "was not copied to /proc/no-such-place" in run.run.paths.log_file(0, 0).read_text()


@pytest.mark.slow
def test_runs_diff_names_the_step_at_which_two_runs_part(
    tmp_path: Path, text: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    first = TinyRun(tmp_path / "first", tiny_config(tmp_path, text, deterministic=True), text)
    again = TinyRun(tmp_path / "again", tiny_config(tmp_path, text, deterministic=True), text)
    other = TinyRun(tmp_path / "other", tiny_config(tmp_path, text, deterministic=True), text)
    other.run.paths.skip_batch(0, 8 * 4, "to let it part at the ninth step")
    for run in (first, again, other):
        assert run.go().status is Status.COMPLETED

    def diff(second: TinyRun) -> tuple[int, dict[str, Any]]:
        code = main(["runs", "diff", str(first.run.paths.root), str(second.run.paths.root), "--json"])
        return code, json.loads(capsys.readouterr().out)

    code, found = diff(again)
    assert (code, found["parting"], found["steps_compared"]) == (0, None, sum(STEPS))
    code, found = diff(other)
    assert (code, found["parting"]["global_step"], found["settings"]) == (1, 9, [])
