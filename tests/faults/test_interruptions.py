"""Asked to stop, a run checkpoints at the next step border, says "requeue me", and goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from launcher.training.phases import Status
from launcher.training.signals import StopFlag, signals_noted
from tests.faults.holding import EVALUATION, go_on_in_another_process, held_at, wait_for
from tests.faults.tiny_run import STEPS, TinyRun, rank_processes

Runs = Callable[..., TinyRun]

SECONDS_UNTIL_PASSED_ON = 1
"""The driver looks for requests ten times a second."""


@pytest.mark.parametrize(
    ("number", "zero_stage", "loader_workers"),
    [
        pytest.param(signal.SIGTERM, 0, 2, marks=pytest.mark.slow),
        (signal.SIGINT, 3, 0),
        pytest.param(signal.SIGUSR1, 2, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, 1, 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_rank_stops_all_at_the_same_step_with_a_checkpoint(
    number: int, zero_stage: int, loader_workers: int, new_run: Runs, undisturbed: Runs
) -> None:
    run = new_run(zero_stage=zero_stage, loader_workers=loader_workers, checkpoint_every_steps=100)
    with run.disturbed_at(5, lambda: rank_processes()[-1].send_signal(number)):
        assert run.go().status is Status.STOPPED
    last_step = run.losses()[-1][0]
    assert run.checkpoints() == [f"step-{last_step:08d}"]
    assert 5 <= last_step < STEPS[0]
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed(zero_stage=zero_stage).losses()


def test_a_signal_to_the_driver_is_passed_on_once_and_checkpoints(new_run: Runs, undisturbed: Runs) -> None:
    run = new_run()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_UNTIL_PASSED_ON)

    with signals_noted() as stop, run.disturbed_at(5, interrupt):
        assert run.go(stop).status is Status.STOPPED
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed().losses()


def test_a_second_signal_ends_the_ranks_at_once(new_run: Runs) -> None:
    run = new_run(checkpoint_every_steps=100)
    stop = StopFlag()

    def press_twice_while_no_rank_can_reach_a_step_border() -> None:
        for process in rank_processes():
            process.suspend()
        stop.requests += 1
        time.sleep(0.5)
        assert len(rank_processes()) == 2
        stop.requests += 1

    with run.disturbed_at(5, press_twice_while_no_rank_can_reach_a_step_border):
        assert run.go(stop).status is Status.STOPPED
    assert run.checkpoints() == []
    assert rank_processes() == []


def test_ranks_that_do_not_stop_in_time_are_ended(new_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.backends.local.backend._SECONDS_TO_STOP", 0.5)
    run = new_run(checkpoint_every_steps=100)
    stop = StopFlag()

    def ask_while_no_rank_can_reach_a_step_border() -> None:
        for process in rank_processes():
            process.suspend()
        stop.requests += 1

    with run.disturbed_at(5, ask_while_no_rank_can_reach_a_step_border):
        assert run.go(stop).status is Status.STOPPED
    assert run.checkpoints() == []
    assert rank_processes() == []


@pytest.mark.slow
@pytest.mark.parametrize(("option", "checkpoints"), [("--save", 1), ("--no-save", 0)])
def test_longformer_stop_ends_a_run_of_another_process(
    option: str, checkpoints: int, new_run: Runs, undisturbed: Runs
) -> None:
    run = new_run(checkpoint_every_steps=100)
    stop = [sys.executable, "-m", "launcher.cli", "stop", str(run.run.paths.root)]
    with held_at(run.run.paths.root, "3") as waits:
        driver = go_on_in_another_process(run.run.paths.root)
        wait_for(waits, driver)
        stopping = subprocess.Popen([*stop, option], stdout=subprocess.PIPE, text=True)
        wait_for(lambda: run.run.paths.stop_requests() > 0, driver)
        time.sleep(SECONDS_UNTIL_PASSED_ON)
    said, _ = stopping.communicate(timeout=60)
    assert stopping.returncode == 0
    assert "longformer resume" in said
    assert driver.wait(60) == 75
    assert len(run.checkpoints()) == checkpoints
    again = subprocess.run(stop, capture_output=True, text=True)
    assert again.returncode == 2
    assert "no run is going on" in again.stderr
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed().losses()


def test_a_signal_during_evaluation_loses_no_step(new_run: Runs, undisturbed: Runs) -> None:
    run = new_run()
    with run.disturbed_at(EVALUATION, lambda: rank_processes()[0].terminate()):
        assert run.go().status is Status.STOPPED
    assert run.checkpoints()[-1] == f"step-{STEPS[0]:08d}"
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed().losses()
    assert run.evaluations() == undisturbed().evaluations()


@pytest.mark.slow
def test_ctrl_c_on_the_command_line_exits_with_75_after_a_checkpoint(new_run: Runs, undisturbed: Runs) -> None:
    """The whole foreground process group gets SIGINT, as a terminal would send it."""
    run = new_run()
    with held_at(run.run.paths.root, "3") as waits:
        program = go_on_in_another_process(run.run.paths.root, start_new_session=True)
        wait_for(waits, program)
        os.killpg(program.pid, signal.SIGINT)
        time.sleep(SECONDS_UNTIL_PASSED_ON)
    _, said = program.communicate(timeout=120)
    assert program.returncode == 75
    assert f"longformer resume {run.run.paths.root}".encode() in said
    assert b"Traceback" not in said
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    assert run.go().status is Status.COMPLETED
    assert run.losses() == undisturbed().losses()
