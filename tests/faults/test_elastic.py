"""A run goes on wherever there are machines: with other numbers of ranks and other ZeRO stages, on the same samples."""

from pathlib import Path

import pytest

from data_pipeline.prepared import PreparedData
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
