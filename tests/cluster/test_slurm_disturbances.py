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
    """See that both nodes work again after the test."""
    yield
    for node in ("n1", "n2"):
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
    assert limited.status()["state"] == "waiting"
    tracked_as = limited.run.identity().mlflow_run_id
    limited.wait_for_the_end()
    assert f"job {limited.job} on n[1-2], start 2" in limited.words()
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


@pytest.mark.parametrize(
    ("cut", "mended"),
    [
        (("testbed-kill", "n2"), ("testbed-start", "n2")),
        (("testbed-network", "n2", "down"), ("testbed-network", "n2", "up")),
    ],
    ids=["power", "network"],
)
def test_a_job_that_loses_a_node_goes_on_when_it_is_back(
    cut: tuple[str, ...], mended: tuple[str, ...], nodes: None, losses: list[tuple[int, float]], cluster: Path,
    short_run_file: Path,
) -> None:  # fmt: skip
    run = submit(short_run_file, cluster / cut[0])
    run.wait_for_steps()
    slurm(*cut)
    run.wait_in_the_queue()
    assert run.losses()[-1][0] < 80
    slurm(*mended)
    run.wait_for_the_end()
    assert run.losses() == losses
    verified = longformer("checkpoint", "verify", run.run.path)
    assert verified.returncode == 0, verified.stdout
