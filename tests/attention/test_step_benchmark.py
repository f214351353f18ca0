"""The step benchmark runs the real models, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.commands.bench.step import as_table
from longformer.benchmarks import attention as attention_benchmark
from longformer.benchmarks import step as step_benchmark
from longformer.benchmarks.attention_engines import BLOCKED, ENGINES
from longformer.benchmarks.busy import busy_processes, compare_busy
from longformer.benchmarks.memory import how_it_ended, in_own_process
from longformer.benchmarks.step import StepMeasurement, compare_steps, summed_up, take_turn
from longformer.benchmarks.step_models import HUGGING_FACE, OURS, ROBERTA, contenders
from longformer.errors import LongformerError

pytest.importorskip("transformers", reason="the comparison needs transformers")


def test_a_short_text_is_given_to_roberta_too() -> None:
    assert contenders("longformer-base", 64) == [OURS, HUGGING_FACE, ROBERTA]
    assert contenders("longformer-base", 4096) == [OURS, HUGGING_FACE]
    assert contenders("led-base-encoder", 64) == [OURS, HUGGING_FACE]


def test_a_contender_that_fails_is_named_with_its_reason() -> None:
    measurement = take_turn("longformer-base", 100_000, ROBERTA)
    assert measurement.seconds is None
    assert "could not measure RoBERTa at 100000 tokens" in str(measurement.failure)
    assert "killed" in how_it_ended(-signal.SIGKILL, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is only known on Linux")
def test_a_contender_killed_for_memory_is_a_result_that_says_how_much_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = "import os, signal, time; held = b'1' * 300_000_000; time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "greedy.py").write_text(killed)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LongformerError, match=r"the system killed it when it held 0\.3 GB, most likely"):
        in_own_process("greedy", what="it")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "expected"), [("longformer-base", 3), ("led-base-encoder", 2)])
def test_the_command_measures_every_contender(model: str, expected: int, tmp_path: Path) -> None:
    file = tmp_path / "steps.json"
    options = ["--model", model, "--length", "32", "--repeats", "1", "--json", str(file)]
    assert main(["bench", "step", *options]) == 0
    measurements = json.loads(file.read_text())["measurements"]
    assert len(measurements) == expected
    # Weights and gradients of LED-base's encoder alone take 650 MB.
    assert all(each["seconds"] > 0 and each["peak_bytes"] > 6e8 for each in measurements)


def test_of_all_turns_the_fastest_step_and_the_highest_peak_count() -> None:
    turns = [
        StepMeasurement("led-base-encoder", 64, OURS, seconds, 64 / seconds, peak, (seconds,))
        for seconds, peak in ((3.0, 7), (2.0, 5), (4.0, 6))
    ]
    assert summed_up(turns) == StepMeasurement("led-base-encoder", 64, OURS, 2.0, 32.0, 7, (3.0, 2.0, 4.0))
    killed = StepMeasurement("led-base-encoder", 64, OURS, failure="could not measure it: killed")
    assert summed_up([*turns, killed]) == killed


def test_turns_are_taken_one_after_the_other_and_not_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(model: str, positions: int, contender: str) -> StepMeasurement:
        if contender == ROBERTA:
            return StepMeasurement(model, positions, contender, failure="killed")
        return StepMeasurement(model, positions, contender, 1.0, 64.0, 5, (1.0,))

    monkeypatch.setattr(step_benchmark, "take_turn", turn)
    said: list[str] = []
    results = compare_steps("longformer-base", [64], repeats=2, report=said.append)
    assert [line.split(":")[0] for line in said] == [OURS, HUGGING_FACE, ROBERTA, OURS, HUGGING_FACE]
    assert [len(each.seconds_of_turns) for each in results] == [2, 2, 0]


def test_the_table_sets_every_contender_beside_ours() -> None:
    rows = [StepMeasurement("led-base-encoder", 64, OURS, 2.0, 32.0, 2**30)]
    rows.append(StepMeasurement("led-base-encoder", 64, HUGGING_FACE, 5.0, 12.8, 2**32))
    rows.append(StepMeasurement("led-base-encoder", 64, ROBERTA, failure="could not measure it: killed"))
    table = as_table("led-base-encoder", rows)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["ours is"] == ["1.00x as fast", "2.50x as fast", "-"]
    assert cells["ours needs"] == ["1.00 of it", "0.25 of it", "-"]


def test_busy_processes_end_with_the_measurement_even_when_it_fails() -> None:
    started: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        popen = subprocess.Popen

        def remember(*arguments: Any) -> subprocess.Popen[bytes]:
            started.append(popen(*arguments))
            return started[-1]

        patch.setattr(subprocess, "Popen", remember)

        def fail() -> None:
            with busy_processes(2):
                assert [process.poll() for process in started] == [None, None]
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
    assert [process.poll() for process in started] == [-signal.SIGKILL, -signal.SIGKILL]


def test_every_contender_is_measured_alone_and_beside_busy_ones_with_and_without_the_wait_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    asked: list[tuple[str, str | None]] = []

    def measure(contender: str, environment: Mapping[str, str]) -> list[float]:
        asked.append((contender, environment.get("OMP_WAIT_POLICY")))
        return [1.0, 2.0, 9.0] if len(asked) % 2 else [4.0, 5.0, 6.0]

    found = compare_busy(measure, [OURS, HUGGING_FACE], positions=64, busy=1, repeats=2, report=lambda _: None)
    turn = [(name, policy) for name in (OURS, HUGGING_FACE) for policy in ("PASSIVE", None) for _ in range(2)]
    assert asked == 2 * turn
    assert [(each.contender, each.wait_policy) for each in found] == turn[::2]
    assert all((each.quiet_seconds, each.busy_seconds, each.ratio) == (2.0, 5.0, 2.5) for each in found)
    assert all((each.quiet_turns, each.busy_turns) == ((2.0, 2.0), (5.0, 5.0)) for each in found)


def test_the_command_sets_the_wait_policy_before_torch_is_loaded_unless_the_user_has(tmp_path: Path) -> None:
    script = "import sys; from launcher.cli import main; main(['--version']); import os; print('torch' in sys.modules)"
    script += "; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in ({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
        printed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert printed.stdout.split()[-2:] == ["False", expected]


@pytest.mark.slow
def test_the_command_reports_quiet_and_busy_times_of_attention(tmp_path: Path) -> None:
    file = tmp_path / "busy.json"
    options = ["--busy", "1", "--length", "64", "--window", "16", "--heads", "2", "--repeats", "1", "--json", str(file)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_benchmark, "ENGINES", [e for e in ENGINES if e.name == BLOCKED])
        assert main(["bench", "attention", *options]) == 0
    found = json.loads(file.read_text())["busy"]
    assert [each["wait_policy"] for each in found] == ["PASSIVE", None]
    assert all(each["quiet_seconds"] > 0 and each["busy_seconds"] > 0 and each["ratio"] > 0 for each in found)
