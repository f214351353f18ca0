"""`longformer checkpoint` tells the truth about a run's checkpoints and never takes the last good one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.training.phases import Status
from tests.faults.tiny_run import STEPS, TinyRun, kill_all_ranks

Runs = Callable[..., TinyRun]


@pytest.fixture
def run(new_run: Runs) -> TinyRun:
    """A run killed late in its first phase, with checkpoints of steps 4, 8 and 12."""
    run = new_run(checkpoints_kept=3)
    with run.disturbed_at(STEPS[0] - 1, kill_all_ranks):
        run.go()
    assert run.checkpoints() == ["step-00000004", "step-00000008", "step-00000012"]
    return run


def checkpoint(run: TinyRun, step: int) -> Path:
    return run.run.checkpoints_directory(0) / f"step-{step:08d}"


def spoil(path: Path) -> None:
    victim = path / "state" / "mp_rank_00_model_states.pt"
    victim.write_bytes(victim.read_bytes()[:-1])


def test_ls_shows_what_is_there(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "ls", str(run.run.paths.root), "--json"]) == 0
    listed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [entry["step"] for entry in listed] == [4, 8, 12]
    newest = listed[-1]
    files = [path for path in Path(newest["path"]).rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert newest["bytes"] == sum(path.stat().st_size for path in files)
    assert (newest["ranks"], newest["zero_stage"], newest["phase"]) == (2, 2, "short")
    assert main(["checkpoint", "ls", str(run.run.paths.root)]) == 0
    assert "step-00000008" in capsys.readouterr().out


def test_verify_names_the_damaged_one_and_fails(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "verify", str(run.run.paths.root)]) == 0
    spoil(checkpoint(run, 8))
    assert main(["checkpoint", "verify", str(run.run.paths.root)]) == 1
    shown = capsys.readouterr()
    assert "step-00000008: mp" not in shown.out
    assert "mp_rank_00_model_states.pt has" in shown.out
    assert "1 of 3 checkpoints are damaged" in shown.err
    assert main(["checkpoint", "verify", str(checkpoint(run, 12))]) == 0


@pytest.mark.slow
def test_prune_keeps_the_newest_whole_one_even_when_newer_ones_are_damaged(run: TinyRun, undisturbed: Runs) -> None:
    spoil(checkpoint(run, 12))
    spoil(checkpoint(run, 8))
    assert main(["checkpoint", "prune", str(run.run.paths.root), "--keep", "1"]) == 0
    assert run.checkpoints() == ["step-00000004", "step-00000012"]
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed(checkpoints_kept=3).losses()


def test_reshard_writes_a_copy_that_verifies(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "reshard", str(checkpoint(run, 12))]) == 0
    copy = capsys.readouterr().out.strip()
    assert copy.endswith("universal-step-00000012")
    assert main(["checkpoint", "verify", copy]) == 0
    spoil(checkpoint(run, 8))
    assert main(["checkpoint", "reshard", str(checkpoint(run, 8))]) == 2


def test_diff_tells_where_training_stood_and_which_weights_moved(
    run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoint", "diff", str(checkpoint(run, 8)), str(checkpoint(run, 12)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["step"] == [8, 12]
    assert found["facts"]["data position"] == [32, 48]
    assert all(difference > 0 for difference in found["largest_weight_differences"].values())
    assert main(["checkpoint", "diff", str(checkpoint(run, 8)), str(checkpoint(run, 8))]) == 0
    assert "weights are identical" in capsys.readouterr().out


def test_permanent_checkpoints_stay(new_run: Runs) -> None:
    run = new_run(checkpoint_every_steps=2, checkpoints_kept=1, permanent_checkpoint_every_steps=4)
    assert run.go().status is Status.COMPLETED
    assert run.checkpoints() == ["step-00000004", "step-00000008", "step-00000012", "step-00000014"]
