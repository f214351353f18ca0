"""In a real Slurm job of two nodes the doctor examines both, and tells of a node whose storage is another."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 240


def answer_of_a_job(log: Path, runs: Path, *, before: str = "true", after: str = "true") -> tuple[dict[str, Any], str]:
    """Run the doctor in a job of two nodes; return what it answered in JSON and how the job ended."""
    doctor = f"{sys.executable} -m launcher.cli doctor --nodes --json --runs {runs}"
    command = f"{before} && {doctor}; code=$?; {after}; exit $code"
    options = ["--parsable", "--nodes=2", "--time=10", f"--output={log}", f"--chdir={Path.cwd()}"]
    submitted = subprocess.run(["sbatch", *options, f"--wrap={command}"], capture_output=True, text=True, check=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    state = "PENDING"
    while state in ("PENDING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no word"
        time.sleep(0.3)
        shown = subprocess.run(
            ["scontrol", "show", "job", submitted.stdout.strip()], capture_output=True, text=True, check=True
        ).stdout
        state = dict(word.split("=", 1) for word in shown.split() if "=" in word)["JobState"]
    text = log.read_text()
    assert "{" in text, text
    return json.loads(text[text.index("{\n") :]), state


def levels(answer: dict[str, Any], check: str) -> dict[str, list[str]]:
    return {
        node: [each["level"] for each in found if each["check"] == check] for node, found in answer["nodes"].items()
    }


def test_every_node_of_a_job_is_examined(cluster: Path, tmp_path: Path) -> None:
    answer, state = answer_of_a_job(tmp_path / "log", tmp_path)
    assert (answer["level"], state) == ("WARN", "COMPLETED"), answer
    for check in ("torch", "lock", "shared storage", "seen from the first node", "network between nodes", "clock"):
        assert levels(answer, check) == {"n1": ["OK"], "n2": ["OK"]}, answer
    assert levels(answer, "Slurm") == {"n1": ["OK"], "n2": ["OK"]}


def test_storage_that_nodes_do_not_share_is_missing_and_ends_the_job_with_1(cluster: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    everywhere = "srun --nodes=2 --ntasks=2 --ntasks-per-node=1"
    answer, state = answer_of_a_job(
        tmp_path / "log",
        runs,
        before=f"{everywhere} mount -t tmpfs own-storage {runs}",
        after=f"{everywhere} umount {runs}",
    )
    assert (answer["level"], state) == ("MISS", "FAILED")
    assert levels(answer, "lock") == {"n1": ["OK"], "n2": ["OK"]}
    assert levels(answer, "shared storage") == {"n1": ["OK"], "n2": ["MISS"]}
    assert levels(answer, "seen from the first node") == {"n1": ["OK"], "n2": ["MISS"]}
