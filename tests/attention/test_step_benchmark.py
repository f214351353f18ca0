"""The step benchmark runs the real models, each in a process of its own."""

import json
import signal
import sys
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.commands.bench_step import as_table
from longformer.benchmarks.memory import how_it_ended, in_own_process
from longformer.benchmarks.step import StepMeasurement, measure
from longformer.benchmarks.step_models import HUGGING_FACE, OURS, ROBERTA, contenders
from longformer.errors import LongformerError

pytest.importorskip("transformers", reason="the comparison needs transformers")


def test_a_short_text_is_given_to_roberta_too() -> None:
    assert contenders("longformer-base", 64) == [OURS, HUGGING_FACE, ROBERTA]
    assert contenders("longformer-base", 4096) == [OURS, HUGGING_FACE]
    assert contenders("led-base-encoder", 64) == [OURS, HUGGING_FACE]


def test_a_contender_that_fails_is_named_with_its_reason() -> None:
    measurement = measure("longformer-base", 100_000, ROBERTA, 1)
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


def test_the_table_sets_every_contender_beside_ours() -> None:
    rows = [StepMeasurement("led-base-encoder", 64, OURS, 2.0, 32.0, 2**30)]
    rows.append(StepMeasurement("led-base-encoder", 64, HUGGING_FACE, 5.0, 12.8, 2**32))
    rows.append(StepMeasurement("led-base-encoder", 64, ROBERTA, failure="could not measure it: killed"))
    table = as_table("led-base-encoder", rows)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["ours is"] == ["1.00x as fast", "2.50x as fast", "-"]
    assert cells["ours needs"] == ["1.00 of it", "0.25 of it", "-"]
