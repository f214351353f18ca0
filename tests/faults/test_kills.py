"""Kill anything at any time, resume, and the losses are those of the run that never stopped."""

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from launcher.training.phases import Status
from longformer.errors import LongformerError
from tests.faults.holding import go_on_in_another_process, held_at, wait_for
from tests.faults.tiny_run import CHECKPOINT_EVERY, STEPS, TinyRun, kill_all_ranks, once, rank_processes

Runs = Callable[..., TinyRun]


def check_same(run: TinyRun, expected: TinyRun) -> None:
    assert run.losses() == expected.losses()
    assert run.evaluations() == expected.evaluations()
    assert len(run.losses()) == sum(STEPS)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_run_killed_at_a_random_step_resumes_to_identical_losses(
    zero_stage: int, new_run: Runs, undisturbed: Runs
) -> None:
    run = new_run(zero_stage=zero_stage)
    step = random.randint(1, sum(STEPS) - 2)
    with run.disturbed_at(step, kill_all_ranks):
        outcome = run.go()
    assert outcome.status is Status.FAILED, f"killed at step {step}"
    assert "SIGKILL" in outcome.message
    assert run.go().status is Status.COMPLETED
    check_same(run, undisturbed(zero_stage=zero_stage))


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("zero_stage", [0, 2, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (1, 3))])
def test_a_run_killed_inside_a_save_resumes_from_the_checkpoint_before(
    zero_stage: int, in_background: bool, new_run: Runs, undisturbed: Runs
) -> None:
    run = new_run(zero_stage=zero_stage, checkpoint_in_background=in_background)
    second_save = 2 * CHECKPOINT_EVERY

    def is_in_second_save() -> bool:
        return run.has_reached(second_save)() and run.is_saving()

    def kill_a_little_later() -> None:
        time.sleep(random.uniform(0, 0.01))
        kill_all_ranks()

    with once(is_in_second_save, kill_a_little_later):
        assert run.go().status is Status.FAILED
    assert run.go().status is Status.COMPLETED
    check_same(run, undisturbed(zero_stage=zero_stage))
    assert not run.is_saving(), "what was half written is gone"


@pytest.mark.slow
@pytest.mark.parametrize("files", range(1, 7))
def test_a_run_killed_when_a_save_has_written_so_many_files_resumes_to_identical_losses(
    files: int, new_run: Runs, undisturbed: Runs
) -> None:
    run = new_run()

    def has_written() -> bool:
        stages = run.run.paths.root.glob("phases/*/checkpoints/.step-*.staging")
        return any(sum(path.is_file() for path in stage.rglob("*")) >= files for stage in stages)

    with once(has_written, kill_all_ranks):
        assert run.go().status is Status.FAILED
    assert run.go().status is Status.COMPLETED
    check_same(run, undisturbed())
    assert not run.is_saving()


@pytest.mark.slow
def test_fifty_kills_in_a_row_in_one_long_run_lose_nothing(new_run: Runs, undisturbed: Runs) -> None:
    options: dict[str, Any] = {"steps": (60, 60), "zero_stage": 1}
    run = new_run(checkpoint_every_steps=1, **options)
    for kill in range(50):
        with run.disturbed_at(1 + 2 * kill, kill_all_ranks):
            assert run.go().status is Status.FAILED
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed(**options).losses()


def test_ten_kills_in_a_row_lose_nothing(new_run: Runs, undisturbed: Runs) -> None:
    run = new_run(zero_stage=2, checkpoint_every_steps=1)
    for kill in range(10):
        with run.disturbed_at(1 + 2 * kill, kill_all_ranks):
            assert run.go().status is Status.FAILED
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed(zero_stage=2).losses()


def test_when_one_rank_dies_the_others_are_ended_and_the_message_names_it(new_run: Runs) -> None:
    run = new_run()

    def kill_second_rank() -> None:
        max(rank_processes(), key=lambda process: process.pid).kill()

    with run.disturbed_at(5, kill_second_rank):
        outcome = run.go()
    assert outcome.status is Status.FAILED
    assert outcome.message.startswith("rank 1 was ended by SIGKILL")
    assert str(run.run.paths.log_file(0, 1)) in outcome.message
    assert rank_processes() == []


@pytest.mark.slow
def test_ranks_of_a_killed_driver_checkpoint_and_leave_and_hold_the_lock_until_then(
    new_run: Runs, undisturbed: Runs
) -> None:
    run = new_run()
    with held_at(run.run.paths.root, "5") as waits:
        driver = go_on_in_another_process(run.run.paths.root)
        wait_for(waits, driver)
        ranks = rank_processes(driver.pid)
        assert len(ranks) == 2
        driver.kill()
        driver.wait()
        with pytest.raises(LongformerError, match="in use by another run"):
            run.go()
    for rank in ranks:
        rank.wait(timeout=60)
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    assert run.go().status is Status.COMPLETED
    check_same(run, undisturbed())
