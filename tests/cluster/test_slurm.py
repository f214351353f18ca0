"""On a real Slurm a run trains over two nodes, keeps what it had if cancelled, and is refused briefly."""

import os
import sys
from pathlib import Path

import pytest

from launcher.backends.slurm.batch_script import TEMPLATES
from tests.cluster.submitted_run import SubmittedRun, longformer, slurm, submit

pytestmark = pytest.mark.slow


def test_the_ranks_of_a_job_on_two_nodes_train_together(undisturbed: SubmittedRun) -> None:
    assert f"job {undisturbed.job} on n[1-2], start 1" in longformer("logs", undisturbed.run.root).stdout
    assert longformer("logs", undisturbed.run.root, "--rank", "1").stdout.count("training goes on") == 2
    assert undisturbed.status()["state"] == "finished"
    assert undisturbed.scores() == sorted(undisturbed.scores(), reverse=True)


def test_a_job_makes_a_ray_cluster_and_trains_three_phases_whose_bits_per_character_fall(
    undisturbed: SubmittedRun, cluster: Path, run_file: Path
) -> None:
    run = submit(run_file, cluster / "ray", "--ray")
    run.wait_for_the_end()
    assert len(run.scores()) == 3
    assert run.scores() == sorted(run.scores(), reverse=True)
    assert run.losses()[:100] == undisturbed.losses()


def test_a_cancelled_job_leaves_a_checkpoint_does_not_come_back_and_can_be_resumed(
    undisturbed: SubmittedRun, cluster: Path, short_run_file: Path
) -> None:
    run = submit(short_run_file, cluster / "cancelled")
    run.wait_for_steps()
    again = longformer("submit", short_run_file, "--nodes", 2, "--run-directory", run.run.root)
    assert f"has job {run.job} in Slurm's queue (RUNNING)" in again.stderr
    slurm("scancel", run.job)
    slurm("scancel", run.job)  # by an impatient user
    run.wait_for_the_end("CANCELLED")
    assert run.status()["state"] == "stopped"
    assert run.slurm("Restarts") == "0"
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    assert run.losses()[-1][0] < 80
    verified = longformer("checkpoint", "verify", run.run.root)
    assert verified.returncode == 0, verified.stdout
    resume = f"{sys.executable} -m launcher.cli resume {run.run.root} --backend slurm"
    resumed = SubmittedRun(
        run.run.root, slurm("sbatch", "--parsable", "--nodes=2", "--output=/dev/null", f"--wrap={resume}").strip()
    )
    resumed.wait_for_the_end()
    assert resumed.losses() == undisturbed.losses()[:80]


def test_where_ray_is_forbidden_torchrun_trains_the_same_and_outlives_the_time_limit(
    undisturbed: SubmittedRun, cluster: Path, two_phases: Path
) -> None:
    edited = cluster / "edited.sbatch"
    lines = (TEMPLATES / "by_hand.sbatch").read_text().splitlines(keepends=True)
    too_much = ("#SBATCH --gpus-per-node", "#SBATCH --cpus-per-task")
    edited.write_text("".join(line for line in lines if not line.startswith(too_much)))
    directory = cluster / "torchrun"
    (directory / "logs").mkdir(parents=True)
    job = slurm(
        "sbatch", "--parsable", "--nodes=2", f"--output={directory}/logs/job.log",
        f"--export=ALL,PATH={Path(sys.executable).parent}:{os.environ['PATH']}",
        str(edited), str(two_phases), str(directory),
    )  # fmt: skip
    run = SubmittedRun(directory, job.strip())
    run.wait_for_steps(85)
    slurm("scancel", "--batch", "--signal=USR1", run.job)  # as slurmctld does before the time limit
    run.wait_in_the_queue()
    assert run.losses()[-1][0] < 100
    run.wait_for_the_end()
    assert run.losses() == undisturbed.losses()


def test_a_job_that_waits_can_be_stopped(cluster: Path, short_run_file: Path) -> None:
    run = submit(short_run_file, cluster / "waiting", "--sbatch", "hold")
    assert run.status()["state"] == "waiting"
    stopped = longformer("stop", run.run.root)
    assert f"job {run.job} is taken out of the queue" in stopped.stdout
    run.wait_for_the_end("CANCELLED")
    again = longformer("stop", run.run.root)
    assert again.returncode == 2
    assert "no run is going on" in again.stderr


def test_of_a_chain_each_job_goes_on_where_the_one_before_stopped_and_none_comes_after_the_end(
    undisturbed: SubmittedRun, cluster: Path, short_run_file: Path
) -> None:
    run = submit(short_run_file, cluster / "chain", "--chain", 3)
    first, second, third = run.jobs
    run.wait_for_steps()
    slurm("scancel", "--batch", "--signal=USR1", first)  # as slurmctld does before the time limit
    run.wait(lambda: run.slurm("JobState", first) == "FAILED")
    assert run.slurm("ExitCode", first) == "75:0"
    run.wait(lambda: run.slurm("JobState", third) == "CANCELLED")
    assert run.slurm("JobState", second) == "COMPLETED"
    assert run.losses() == undisturbed.losses()[:80]


def test_the_runs_of_a_sweep_are_tasks_of_one_array(
    undisturbed: SubmittedRun, cluster: Path, short_run_file: Path
) -> None:
    sweep = submit(short_run_file, cluster / "sweep", "--sweep", "seed=0,1")
    first, second = (SubmittedRun(sweep.run.root / str(index), f"{sweep.job}_{index}") for index in range(2))
    first.wait(lambda: {one["state"] for one in sweep.status()} == {"finished"})
    assert [one["values"] for one in sweep.status()] == ["seed=0", "seed=1"]
    assert first.losses() == undisturbed.losses()[:80]
    assert second.losses() != first.losses()
    assert len(second.losses()) == 80


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--partition", "gone"), "Invalid partition name specified; choose another --partition"),
        (("--partition", "closed"), "Invalid account or account/partition combination specified; name yours with"),
        (("--gpus-per-node", 4), "Invalid generic resource (gres) specification; lower --gpus-per-node"),
        (("--nodes", 4), "Node count specification invalid; lower --nodes"),
        (
            ("--time", 61, "--partition", "spot"),
            "Requested time limit is invalid (missing or exceeds some limit); lower",
        ),
    ],
)
def test_what_slurm_refuses_is_one_sentence_that_says_what_there_is(
    option: tuple[object, ...], sentence: str, cluster: Path, short_run_file: Path
) -> None:
    answer = longformer("submit", short_run_file, *option, "--run-directory", cluster / "refused")
    assert answer.returncode == 2
    assert f"error: Slurm refuses the job: {sentence}" in answer.stderr
    assert "it offers: main (3 nodes of 8 processors, GPUs: none, at most infinite), spot (3" in answer.stderr
