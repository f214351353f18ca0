"""What is damaged, full, taken or foreign is named in one sentence, and nothing good is lost."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_pipeline.shards.prepared import PreparedData
from launcher.runs.paths import RunPaths
from launcher.training.phases import Status
from longformer.errors import LongformerError
from tests.faults.tiny_run import CHECKPOINT_EVERY, STEPS, TinyRun, kill_all_ranks, once, tiny_config

Runs = Callable[..., TinyRun]


@pytest.mark.parametrize(
    "kind",
    ["flipped", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("manifest", "cut", "missing"))],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(kind: str, new_run: Runs, undisturbed: Runs) -> None:
    run = new_run()
    with run.disturbed_at(STEPS[0] - 1, kill_all_ranks):
        run.go()
    before, newest = run.checkpoints()
    directory = run.run.checkpoints_directory(0) / newest
    victim = directory / ("manifest.json" if kind == "manifest" else "state/mp_rank_00_model_states.pt")
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x40
    if kind == "missing":
        victim.unlink()
    else:
        victim.write_bytes(content if kind == "flipped" else content[: len(content) // 2])
    assert run.go().status is Status.COMPLETED
    (warning,) = run.warnings
    assert newest in warning
    assert victim.name in warning
    assert run.losses() == undisturbed().losses()
    assert before < newest


def test_a_full_disk_is_one_sentence_and_training_goes_on_once_there_is_room(
    small_disk: Path, tmp_path: Path, text: PreparedData, undisturbed: Runs
) -> None:
    run = TinyRun(small_disk / "run", tiny_config(tmp_path, text), text)
    ballast = small_disk / "ballast"
    # Room for the first checkpoint, not for the second.
    with run.disturbed_at(CHECKPOINT_EVERY + 1, lambda: fill(ballast)):
        outcome = run.go()
    assert outcome.status is Status.FAILED
    assert "checkpoint step-00000008 could not be written" in outcome.message
    assert "0.0 MiB are free" in outcome.message
    assert run.checkpoints() == ["step-00000004"]
    ballast.unlink()
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed().losses()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB; mounting one takes root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_run_of_another_config_is_refused_with_the_difference(
    new_run: Runs, tmp_path: Path, text: PreparedData
) -> None:
    run = new_run()
    other = tiny_config(tmp_path, text, weight_decay=0.5)
    with pytest.raises(LongformerError, match=r"training\.weight_decay: 0.01 -> 0.5"):
        run.run.continued_with(other, ranks=2, data_fingerprint=text.fingerprint)


def test_other_data_and_ranks_that_do_not_divide_the_batch_are_refused(new_run: Runs) -> None:
    run = new_run()
    config = run.run.config
    with pytest.raises(LongformerError, match="other data"):
        run.run.continued_with(config, ranks=2, data_fingerprint="0" * 64)
    with pytest.raises(LongformerError, match="batch_size 4 cannot be divided over 3 ranks"):
        config.check_ranks(3)
    assert run.run.paths.identity().ranks == 2


def test_a_directory_that_cannot_be_made_or_holds_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LongformerError, match="cannot write to the run directory"),
        RunPaths(tmp_path / "file" / "run").locked(),
    ):
        pass
    with pytest.raises(LongformerError, match="is not a run directory"):
        RunPaths(tmp_path).identity()


def test_a_directory_in_use_by_a_living_process_is_refused(new_run: Runs) -> None:
    run = new_run()
    with run.run.paths.locked(), pytest.raises(LongformerError, match="in use by another run"):
        run.go()
    assert run.go().status is Status.COMPLETED


def test_a_lost_last_checkpoint_is_named_when_the_next_phase_keeps_the_optimizer(new_run: Runs) -> None:
    run = new_run()
    first_result = run.run.result_directory(0) / "evaluation.json"
    with once(first_result.exists, kill_all_ranks):
        run.go()
    for checkpoint in run.run.checkpoints_directory(0).glob("step-*"):
        (checkpoint / "manifest.json").write_text(json.dumps({}))
    with pytest.raises(LongformerError, match="keeps the optimizer of phase short"):
        run.go()
