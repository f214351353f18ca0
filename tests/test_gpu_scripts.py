"""The scripts for a machine with a GPU, rehearsed: every line of them runs here, tiny, so that none fails then."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from longformer.benchmarks.flash_window import FlashAttention2
from longformer.benchmarks.rows import Absent, Row, Rows

REPOSITORY = Path(__file__).resolve().parent.parent


def outcomes(file: Path) -> dict[str, tuple[str, Any]]:
    rows = json.loads(file.read_text())["rows"]
    return {row["name"]: (row["outcome"], row.get("result", row.get("reason"))) for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("fused_attention_on_gpu.py", "first"),
        ("fused_attention_on_gpu.py", "second"),
        ("training_on_gpu.py",),
    ],
    ids=" ".join,
)
def test_a_rehearsal_measures_every_row_that_does_not_ask_for_a_gpu(command: tuple[str, ...], tmp_path: Path) -> None:
    for needed in ("triton", "transformers"):
        pytest.importorskip(needed)
    file = tmp_path / "found.json"
    script, *part = command
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    call = [sys.executable, REPOSITORY / "benchmarks" / script, *part, "--rehearse", "--output", file]
    subprocess.run(call, cwd=tmp_path, env=environment, check=True)
    found = outcomes(file)
    assert {outcome for outcome, _ in found.values()} <= {"measured", "absent"}, found
    absent = {reason for outcome, reason in found.values() if outcome == "absent"}
    assert all("not installed" in reason or "CUDA" in reason or "on the CPU" in reason for reason in absent)
    assert len(absent) < len(found) / 3
    in_plain_loops = [result for name, (_, result) in found.items() if "ours" in name and "ZeRO" not in name]
    assert {result["waits"] for result in in_plain_loops if "waits" in result} <= {0}
    assert {result["exit code"] for _, result in found.values() if "exit code" in result} <= {0}


def work(what: str) -> dict[str, Any]:
    """Does what a row of a bad day does."""
    if what == "raise":
        raise RuntimeError("out of resources\nand more")
    if what == "hang":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "miss":
        raise Absent("no such package")
    return {"answer": object() if what == "return nonsense" else 42}


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_row_that_fails_is_written_down_and_the_rest_goes_on(at_once: int, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    rows = Rows(file, {"who": "me"}, minutes=1)
    names = ["raise", "hang", "die", "miss", "return nonsense", "succeed"]
    rows.take(
        [Row(name, {"what": name}, seconds=2.0 if name == "hang" else 60.0) for name in names], work, at_once=at_once
    )
    found = outcomes(file)
    assert found == {
        "raise": ("failed", "RuntimeError: out of resources"),
        "hang": ("stopped", "did not end within 2 s"),
        "die": ("failed", "it ended with exit code -11"),
        "miss": ("absent", "no such package"),
        "return nonsense": ("failed", "TypeError: Object of type object is not JSON serializable"),
        "succeed": ("measured", {"answer": 42}),
    }
    assert json.loads(file.read_text())["who"] == "me"


def test_after_the_whole_time_rows_are_written_down_as_not_begun(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "found.json", {}, minutes=0.02)
    rows.take([Row("long", {"what": "hang"}), Row("late", {"what": "succeed"})], work)
    found = outcomes(tmp_path / "found.json")
    assert (found["long"][0], found["late"]) == ("stopped", ("not begun", "the time was up"))


def test_the_window_of_pytorchs_flash_attention_has_gradients_of_the_right_shapes() -> None:
    """Without numbers, on tensors without memory: it runs on a GPU only."""
    inputs = [torch.empty(2, 256, 4, 64, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in range(3)]
    output = FlashAttention2.apply(*inputs, 128, 128)
    gradients = torch.autograd.grad(output, inputs, torch.empty_like(output))
    assert {tensor.shape for tensor in (output, *gradients)} == {inputs[0].shape}
