"""A run goes on wherever there are machines: with other numbers of ranks and other ZeRO stages, on the same samples."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.prepared import PreparedData
from launcher.cli import main
from launcher.phases import Status
from launcher.run_file import RunConfig
from tests.faults.tiny_run import STEPS, TinyRun, kill_all_ranks, once, tiny_config


def test_a_run_killed_and_resumed_on_2_1_4_and_2_ranks_and_other_zero_stages_follows_the_undisturbed_losses(
    tmp_path: Path, text: PreparedData
) -> None:
    # Without dropout: every rank draws its own, so it differs with their number by nature.
    expected = TinyRun(tmp_path / "expected", tiny_config(tmp_path, text, zero_stage=1, dropout=0.0), text)
    assert expected.go().status is Status.COMPLETED

    run = TinyRun(tmp_path / "run", tiny_config(tmp_path, text, zero_stage=1, dropout=0.0), text)
    for ranks, zero_stage, until in [(2, 1, 6), (1, 3, 10), (4, 2, STEPS[0] + 6)]:
        go_on_with(run, ranks, tiny_config(tmp_path, text, zero_stage=zero_stage, dropout=0.0), text)
        with once(run.has_reached(until), kill_all_ranks):
            assert run.go().status is Status.FAILED
    go_on_with(run, 2, tiny_config(tmp_path, text, zero_stage=0, dropout=0.0), text)
    assert run.go().status is Status.COMPLETED

    assert [step for step, _ in run.losses()] == list(range(1, sum(STEPS) + 1))
    assert [loss for _, loss in run.losses()] == pytest.approx([loss for _, loss in expected.losses()], rel=1e-3)
    assert run.warnings == []


def go_on_with(run: TinyRun, ranks: int, config: RunConfig, data: PreparedData) -> None:
    run.run.continue_with(config, ranks=ranks, data_fingerprint=data.fingerprint)
    run.ranks = ranks


def test_runs_diff_names_the_step_at_which_two_runs_part(
    tmp_path: Path, text: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    first = TinyRun(tmp_path / "first", tiny_config(tmp_path, text, deterministic=True), text)
    again = TinyRun(tmp_path / "again", tiny_config(tmp_path, text, deterministic=True), text)
    other = TinyRun(tmp_path / "other", tiny_config(tmp_path, text, deterministic=True), text)
    other.run.leave_out_batch(0, 8 * 4, "to let it part at the ninth step")
    for run in (first, again, other):
        assert run.go().status is Status.COMPLETED

    def diff(second: TinyRun) -> tuple[int, dict[str, Any]]:
        code = main(["runs", "diff", str(first.run.path), str(second.run.path), "--json"])
        return code, json.loads(capsys.readouterr().out)

    code, found = diff(again)
    assert (code, found["parting"], found["steps_compared"]) == (0, None, sum(STEPS))
    code, found = diff(other)
    assert (code, found["parting"]["global_step"], found["settings"]) == (1, 9, [])
