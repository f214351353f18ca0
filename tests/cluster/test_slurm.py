"""On a real Slurm of two nodes a run trains over both, outlives the time limit, and keeps what it had if cancelled."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.run_directory import RunDirectory

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "launcher.cli")
PATIENCE_SECONDS = 300


class SubmittedRun:
    """A run in Slurm's hands, seen as a user sees it."""

    def __init__(self, run_file: Path, directory: Path, *, nodes: int = 2) -> None:
        self.run = RunDirectory(directory)
        submitted = longformer("submit", run_file, "--nodes", nodes, "--time", "10", "--run-directory", directory)
        assert submitted.returncode == 0, submitted.stderr
        self.job = submitted.stdout.split(";")[0].removeprefix("job ")

    def status(self) -> dict[str, Any]:
        return json.loads(longformer("status", self.run.path, "--json").stdout)

    def slurm(self, field: str) -> str:
        """Return a field of `scontrol show job`."""
        shown = subprocess.run(["scontrol", "show", "job", self.job], capture_output=True, text=True, check=True).stdout
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)[field]

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.2)

    def words(self) -> str:
        return self.run.job_log.read_text() if self.run.job_log.exists() else "no word"

    def losses(self) -> list[tuple[int, float]]:
        lines = self.run.metrics_file.read_text().splitlines(keepends=True) if self.run.metrics_file.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [(record["global_step"], record["loss"]) for record in records]

    def checkpoints(self) -> list[str]:
        """Return the names of the first phase's committed checkpoints."""
        return sorted(path.name for path in self.run.checkpoints_directory(0, "short").glob("step-*"))


def longformer(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(cluster: Path, run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> SubmittedRun:
    """A run that Slurm has carried out from beginning to end."""
    run = SubmittedRun(run_file, tmp_path_factory.mktemp("undisturbed") / "run")
    run.wait(lambda: run.slurm("JobState") not in ("PENDING", "RUNNING", "COMPLETING"))
    return run


def test_a_job_on_two_nodes_trains_three_phases_and_its_bits_per_character_fall(undisturbed: SubmittedRun) -> None:
    assert undisturbed.slurm("JobState") == "COMPLETED", undisturbed.words()
    assert f"job {undisturbed.job} on n[1-2], start 1" in longformer("logs", undisturbed.run.path).stdout
    assert longformer("logs", undisturbed.run.path, "--rank", "1").stdout.count("training goes on") == 3
    assert undisturbed.status()["state"] == "finished"
    files = sorted(undisturbed.run.path.glob("phases/*/result/evaluation.json"))
    scores = [json.loads(file.read_text())["validation"]["bits_per_character"] for file in files]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_asked_to_stop_before_its_limit_a_job_checkpoints_requeues_and_ends_as_if_undisturbed(
    undisturbed: SubmittedRun, run_file: Path, tmp_path: Path
) -> None:
    run = SubmittedRun(run_file, tmp_path / "run")
    run.wait(lambda: len(run.losses()) >= 5)
    again = longformer("submit", run_file, "--nodes", "2", "--run-directory", run.run.path)
    assert f"has job {run.job} in Slurm's queue (RUNNING)" in again.stderr
    # As slurmctld does for --signal=B:USR1@..., whose moment is only known to the minute.
    subprocess.run(["scancel", "--batch", "--signal=USR1", run.job], check=True)
    run.wait(lambda: run.slurm("Restarts") == "1" and run.slurm("JobState") == "PENDING")
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    assert run.losses()[-1][0] < 40
    tracked_as = run.run.identity().mlflow_run_id
    assert run.status()["state"] == "waiting"
    # A requeued job would wait two minutes.
    subprocess.run(["scontrol", "update", f"JobId={run.job}", "StartTime=now"], check=True)
    run.wait(lambda: run.slurm("JobState") == "COMPLETED")
    assert f"job {run.job} on n[1-2], start 2" in run.words()
    assert run.losses() == undisturbed.losses()
    assert run.run.identity().mlflow_run_id == tracked_as is not None


def test_a_cancelled_job_leaves_a_checkpoint_and_does_not_come_back(
    cluster: Path, run_file: Path, tmp_path: Path
) -> None:
    run = SubmittedRun(run_file, tmp_path / "run")
    run.wait(lambda: len(run.losses()) >= 5)
    subprocess.run(["scancel", run.job], check=True)
    run.wait(lambda: run.status()["state"] == "stopped")
    assert run.slurm("JobState") == "CANCELLED"
    assert run.slurm("Restarts") == "0"
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    verified = longformer("checkpoint", "verify", run.run.path)
    assert verified.returncode == 0, verified.stdout


def test_a_job_that_waits_can_be_stopped(cluster: Path, run_file: Path, tmp_path: Path) -> None:
    run = SubmittedRun(run_file, tmp_path / "run", nodes=4)
    assert run.status()["state"] == "waiting"
    stopped = longformer("stop", run.run.path)
    assert f"job {run.job} is taken out of the queue" in stopped.stdout
    run.wait(lambda: run.slurm("JobState") == "CANCELLED")
    again = longformer("stop", run.run.path)
    assert again.returncode == 2
    assert "no run is going on" in again.stderr


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--partition", "gone"), "Slurm refuses the job: Invalid partition name specified; it offers: main (2 nodes"),
        (("--gpus-per-node", "4", "--ranks-per-node", "1"), "it offers: main (2 nodes"),
    ],
)
def test_what_slurm_refuses_is_one_sentence_that_says_what_there_is(
    option: tuple[str, ...], sentence: str, cluster: Path, run_file: Path, tmp_path: Path
) -> None:
    answer = longformer("submit", run_file, *option, "--run-directory", tmp_path / "run")
    assert answer.returncode == 2
    assert sentence in answer.stderr
