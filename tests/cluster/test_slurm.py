"""On a real Slurm of two nodes a run trains over both, keeps what it had if cancelled, and is refused briefly."""

import json
from pathlib import Path

import pytest

from tests.cluster.submitted_run import SubmittedRun, longformer, slurm

pytestmark = pytest.mark.slow


def test_a_job_on_two_nodes_trains_three_phases_and_its_bits_per_character_fall(undisturbed: SubmittedRun) -> None:
    assert f"job {undisturbed.job} on n[1-2], start 1" in longformer("logs", undisturbed.run.path).stdout
    assert longformer("logs", undisturbed.run.path, "--rank", "1").stdout.count("training goes on") == 3
    assert undisturbed.status()["state"] == "finished"
    files = sorted(undisturbed.run.path.glob("phases/*/result/evaluation.json"))
    scores = [json.loads(file.read_text())["validation"]["bits_per_character"] for file in files]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_a_cancelled_job_leaves_a_checkpoint_and_does_not_come_back(cluster: Path, short_run_file: Path) -> None:
    run = SubmittedRun(short_run_file, cluster / "cancelled")
    run.wait_for_steps()
    again = longformer("submit", short_run_file, "--nodes", 2, "--run-directory", run.run.path)
    assert f"has job {run.job} in Slurm's queue (RUNNING)" in again.stderr
    slurm("scancel", run.job)
    run.wait_for_the_end("CANCELLED")
    assert run.status()["state"] == "stopped"
    assert run.slurm("Restarts") == "0"
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    assert run.losses()[-1][0] < 40
    verified = longformer("checkpoint", "verify", run.run.path)
    assert verified.returncode == 0, verified.stdout


def test_a_job_that_waits_can_be_stopped(cluster: Path, short_run_file: Path) -> None:
    run = SubmittedRun(short_run_file, cluster / "waiting", "--nodes", 4)
    assert run.status()["state"] == "waiting"
    stopped = longformer("stop", run.run.path)
    assert f"job {run.job} is taken out of the queue" in stopped.stdout
    run.wait_for_the_end("CANCELLED")
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
    option: tuple[str, ...], sentence: str, cluster: Path, short_run_file: Path
) -> None:
    answer = longformer("submit", short_run_file, *option, "--run-directory", cluster / "refused")
    assert answer.returncode == 2
    assert sentence in answer.stderr
