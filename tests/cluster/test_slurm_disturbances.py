"""Whatever a cluster does to a job, the run ends with the losses of the undisturbed one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.submitted_run import SubmittedRun, longformer, slurm, submit

pytestmark = pytest.mark.slow

NOBODY = (
    "testbed-enter", "n1",
    "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
    # Without the testbed's own commands, which only root may use.
    "env", "HOME=/nonexistent", "USER=nobody", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
)  # fmt: skip


@pytest.fixture(scope="module")
def losses(undisturbed: SubmittedRun) -> list[tuple[int, float]]:
    """The losses of the first phase."""
    return undisturbed.losses()[:80]


@pytest.fixture
def nodes(cluster: Path) -> Iterator[None]:
    """See that all nodes work again after the test."""
    yield
    for node in ("n1", "n2", "n3"):
        slurm("testbed-network", node, "up")
        slurm("testbed-start", node)


def test_at_its_time_limit_a_job_goes_back_into_the_queue_and_neither_its_neighbour_nor_a_dead_controller_matters(
    losses: list[tuple[int, float]], cluster: Path, short_run_file: Path
) -> None:
    if longformer("--version", user=NOBODY).returncode:
        pytest.skip("this project lies where the user nobody may not read")
    limited = submit(short_run_file, cluster / "limited", "--checkpoint-seconds", 120)
    limited.wait_for_steps()
    with limited.held():  # Slurm looks at time limits every 30 seconds
        neighbour = submit(short_run_file, cluster / "nobody" / "run", user=NOBODY)
        minutes = int(limited.slurm("RunTime").split(":")[1])
        slurm("scontrol", "update", f"JobId={limited.job}", f"TimeLimit={minutes + 2}")
        neighbour.wait_for_steps()
        slurm("testbed-kill", "ctl")
        slurm("testbed-start", "ctl")
        limited.wait(lambda: "asked to stop" in limited.words())
    limited.wait_in_the_queue()
    assert limited.checkpoints()[-1] == f"step-{limited.losses()[-1][0]:08d}"
    assert limited.losses()[-1][0] < 80
    tracked_as = limited.run.identity().mlflow_run_id
    limited.wait_for_the_end()
    assert ", start 2" in limited.words()
    assert limited.losses() == losses
    assert limited.run.identity().mlflow_run_id == tracked_as is not None
    neighbour.wait_for_the_end()
    assert neighbour.losses() == losses
    assert neighbour.run.metrics_file.owner() == "nobody"


def test_a_job_that_must_give_way_checkpoints_and_comes_back(
    losses: list[tuple[int, float]], cluster: Path, short_run_file: Path
) -> None:
    run = submit(short_run_file, cluster / "preempted", "--partition", "spot")
    run.wait_for_steps()
    slurm("sbatch", "--partition=main", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
    run.wait_in_the_queue()
    assert run.checkpoints()[-1] == f"step-{run.losses()[-1][0]:08d}"
    run.wait_for_the_end()
    assert run.losses() == losses


@pytest.mark.parametrize("cut", ["testbed-kill {}", "testbed-network {} down"], ids=["power", "network"])
def test_a_job_that_loses_a_node_goes_on_with_another(
    cut: str, nodes: None, losses: list[tuple[int, float]], cluster: Path, short_run_file: Path
) -> None:
    run = submit(short_run_file, cluster / cut.split()[0])
    run.wait_for_steps()
    second = f"n{run.slurm('NodeList')[-2]}"  # of n[1-2]
    slurm(*cut.format(second).split())
    run.wait_in_the_queue()
    assert run.losses()[-1][0] < 80
    run.wait_for_the_end()
    assert run.losses() == losses
    verified = longformer("checkpoint", "verify", run.run.root)
    assert verified.returncode == 0, verified.stdout


def test_ranks_that_are_lost_too_often_without_a_new_checkpoint_end_the_job(
    cluster: Path, short_run_file: Path
) -> None:
    run = submit(short_run_file, cluster / "lost", "cluster.max_failures=0")
    run.wait_for_steps()
    slurm("scancel", "--signal=KILL", f"{run.job}.0")
    run.wait_for_the_end("FAILED")
    assert run.slurm("ExitCode") == "1:0"
    assert "and that 1 times without a new checkpoint in between (cluster.max_failures is 0)" in run.words()
