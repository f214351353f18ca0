"""On a real Ray cluster a run outlives the loss of a node, makes way for its return, and heeds every notice."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import yaml

from launcher.backends.local.rank import EXIT_STOPPED
from launcher.backends.ray import backend
from launcher.backends.ray.cluster import connected
from launcher.cli import main
from launcher.commands.status import run_status
from launcher.runs.paths import RunPaths
from longformer.errors import LongformerError
from tests.faults.tiny_run import once, prepare_text, tiny_config

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'longformer-train[ray]')")

STEPS = 600


class TwoNodes:
    """A cluster with a job server, whose head and second node have room for one rank each."""

    head: subprocess.Popen[bytes] | None = None
    second: subprocess.Popen[bytes] | None = None

    def __init__(self, directory: Path) -> None:
        self.address, dashboard = free_address(), free_address()
        self.dashboard = f"http://{dashboard}"
        self._directory = directory
        self._ports = ("--port", port_of(self.address), "--dashboard-port", port_of(dashboard))

    def complete(self) -> None:
        """Start the nodes that do not run, and wait until both have joined."""
        if self.head is None or self.head.poll() is not None:
            alone = ("--node-ip-address", "127.0.0.1", "--temp-dir", str(self._directory))
            self.head = self._start("--head", "--include-dashboard", "true", *self._ports, *alone)
            self.wait_for(1)  # a second node gives up on a head that is slow to start
        if self.second is None or self.second.poll() is not None:
            self.add_second()
        self.wait_for(2)

    def add_second(self) -> None:
        """Start the second node, again."""
        self.second = self._start("--address", self.address)

    def kill_second(self) -> None:
        """Take a node's power away: its daemons and all that they have started end at once."""
        end(self.second)

    def kill_head(self) -> None:
        """Take the power of the node away that holds the cluster together."""
        end(self.head)

    def identifier_of_second(self) -> str:
        """Return Ray's name for the second node."""
        with connected(self.address) as there:
            return next(node.identifier for node in there.nodes() if "node:__internal_head__" not in node.total)

    def announce_the_end(self, node: str) -> None:
        """As a cloud does that takes a machine back, by what Ray has for it."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.address]
        command += ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back"]
        subprocess.run([*command, "--deadline-remaining-seconds", "300"], capture_output=True, check=True)

    def wait_for(self, nodes: int) -> None:
        """Return once so many nodes have joined."""
        deadline = time.monotonic() + 120
        while True:
            try:
                with connected(self.address) as there:
                    while len(there.nodes()) < nodes:
                        assert time.monotonic() < deadline, (self._directory / "words.log").read_text()
                        time.sleep(0.2)
                return
            except LongformerError:
                assert time.monotonic() < deadline, (self._directory / "words.log").read_text()
                time.sleep(0.5)

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *options]
        command += ["--num-cpus", "1", "--object-store-memory", "80000000"]
        quick = {"RAY_health_check_period_ms": "500", "RAY_AUTH_MODE": "disabled"}
        with (self._directory / "words.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | quick, start_new_session=True)


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def end(daemon: subprocess.Popen[bytes] | None) -> None:
    """Kill a process and all that it has started."""
    if daemon is None or daemon.poll() is not None:
        return
    family = [*psutil.Process(daemon.pid).children(recursive=True), psutil.Process(daemon.pid)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    daemon.wait()


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as short_path:  # sockets need one
        two = TwoNodes(Path(short_path))
        try:
            yield two
        finally:
            end(two.second)
            end(two.head)


@pytest.fixture
def nodes(cluster: TwoNodes) -> TwoNodes:
    """The cluster with both of its nodes."""
    cluster.complete()
    return cluster


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without dropout, so that its losses do not depend on the number of ranks, and long enough to disturb."""
    directory = tmp_path_factory.mktemp("words")
    tiny_config(directory, prepare_text(directory), dropout=0.0, steps=(STEPS, 20), checkpoint_every_steps=10)
    path = directory / "tiny.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"]["source"] = str(directory / "words.txt")
    content["phases"] = [content["phases"][0] | {"sequence_length": 64, "learning_rate": 1e-3}]
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def expected(run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    """The losses of a run that nothing disturbs, on this machine without Ray."""
    directory = tmp_path_factory.mktemp("undisturbed")
    assert main(["train", str(run_file), "--ranks", "2", "--run-directory", str(directory / "run")]) == 0
    return losses(directory / "run")


def losses(directory: Path) -> list[tuple[int, float]]:
    file = RunPaths(directory).metrics_file
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(record["global_step"], record["loss"]) for record in records]


def ranks_of(directory: Path) -> list[dict[str, Any]]:
    """Return where the driver says each rank is."""
    return RunPaths(directory).ranks()


def wait_until(run: Path, condition: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Wait for a condition on where the ranks of a run are."""
    directory = RunPaths(run)
    while not condition(ranks_of(run)):
        ended = directory.exists and directory.identity().mlflow_status is not None
        assert not ended, "the run ended before it could be disturbed"
        time.sleep(0.02)


def train(run_file: Path, directory: Path, nodes: TwoNodes, *options: str) -> int:
    where = ["--backend", "ray", "--address", nodes.address, "--run-directory", str(directory)]
    return main(["train", str(run_file), *where, *options])


def test_a_run_loses_a_node_goes_on_with_one_and_grows_again_when_it_returns(
    nodes: TwoNodes,
    run_file: Path,
    expected: list[tuple[int, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(backend, "_SECONDS_TO_GROW", 1.0)
    run = tmp_path / "run"

    def disturb() -> None:
        wait_until(run, lambda ranks: len(ranks) == 2)
        nodes.kill_second()
        wait_until(run, lambda ranks: len(ranks) == 1 and ranks[0]["step"] > 60)
        alone = psutil.Process(ranks_of(run)[0]["process"])
        alone.suspend()  # the run must not end before a slow machine has brought the node back
        nodes.add_second()
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            time.sleep(0.1)
        alone.resume()
        wait_until(run, lambda ranks: len(ranks) == 2)

    with once(lambda: len(losses(run)) >= 50, disturb):
        assert train(run_file, run, nodes, "--ranks", "1-2") == 0
    warned = capsys.readouterr().err
    assert "was lost; going on from the last checkpoint" in warned
    assert "there is room for 2 ranks now" in warned
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in expected], rel=1e-3)


def test_a_notice_that_a_node_will_leave_becomes_a_checkpoint_and_so_does_a_request_to_stop(
    nodes: TwoNodes, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    states: list[dict[str, Any]] = []
    second = nodes.identifier_of_second()

    def disturb() -> None:
        wait_until(run, lambda ranks: len(ranks) == 2 and ranks[1]["step"] > 5)
        states.append(run_status(RunPaths(run)))
        nodes.announce_the_end(second)
        wait_until(run, lambda ranks: len(ranks) == 1 and ranks[0]["step"] > 10)
        RunPaths(run).request_stop(save=True)

    # Only a request makes a checkpoint.
    options = ("--ranks", "1-2", "training.checkpoint_every_steps=100000")
    with once(lambda: len(losses(run)) >= 5, disturb):
        assert train(run_file, run, nodes, *options) == EXIT_STOPPED
    nodes.kill_second()
    warned = capsys.readouterr().err
    assert "will leave the cluster" in warned
    assert "the same command goes on" in warned
    assert [rank["rank"] for rank in states[0]["ranks"]] == [0, 1]
    starts = re.findall(r"phase short: (\d+) of", RunPaths(run).log_file(0, 0).read_text())
    assert starts[0] == "0"
    assert int(starts[1]) > 5
    assert [step for step, _ in losses(run)] == list(range(1, len(losses(run)) + 1))
    checkpoints = sorted(path.name for path in run.glob("phases/01-short/checkpoints/step-*"))
    assert checkpoints == [f"step-{int(starts[1]):08d}", f"step-{len(losses(run)):08d}"]


def test_a_rank_that_dies_too_often_ends_the_run_with_its_name(
    nodes: TwoNodes, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with once(
        lambda: len(losses(run)) >= 5 and len(ranks_of(run)) == 2,
        lambda: os.kill(ranks_of(run)[1]["process"], signal.SIGKILL),
    ):
        assert train(run_file, run, nodes, "--ranks", "2", "cluster.max_failures=0") == 1
    assert re.search(r"rank 1 on \S+ died .* 1 times without a new checkpoint", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--ranks", "4"], "has 2 processor cores and 0 GPUs on 2 machines, 2 ranks of 1 processor cores fit"),
        (["phases.0.resources.gpus_per_rank=1"], "0 ranks of 1 processor cores and 1 GPUs fit"),
    ],
)
def test_a_cluster_that_is_too_small_is_told_in_numbers(
    options: list[str],
    sentence: str,
    nodes: TwoNodes,
    run_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(run_file, tmp_path / "run", nodes, *options) == 2
    assert sentence in capsys.readouterr().err


def test_the_job_server_carries_out_a_run_tells_of_it_and_stops_it(
    nodes: TwoNodes, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunPaths(tmp_path / "run")
    submit = ["submit", str(run_file), "--backend", "ray", "--address", nodes.dashboard, "--ranks", "2"]
    submit += ["--run-directory", str(run.root)]
    assert main(submit) == 0
    assert re.match(rf"job {nodes.dashboard}/api/jobs/tiny-[0-9a-f]{{8}};", capsys.readouterr().out)
    wait_until(run.root, lambda ranks: len(ranks) == 2 and ranks[1]["step"] > 15)
    found = run_status(run)
    assert (found["state"], found["queued"]["state"]) == ("running", "RUNNING")
    assert main(submit) == 2
    assert "on its Ray cluster (RUNNING); `longformer stop" in capsys.readouterr().err
    assert main(["stop", str(run.root)]) == 0
    assert main(["logs", str(run.root)]) == 0
    said = capsys.readouterr().out
    assert "phase 1/1 short  step" in said
    assert "stopped; the same command goes on from the last checkpoint" in said
    assert committed(run)[-1] == f"step-{losses(run.root)[-1][0]:08d}"
    assert run_status(run)["state"] == "stopped"


def test_without_its_head_a_run_ends_with_one_sentence_and_what_it_had_saved(
    nodes: TwoNodes, run_file: Path, tmp_path: Path
) -> None:
    run = RunPaths(tmp_path / "run")
    command = [sys.executable, "-m", "launcher.cli", "train", str(run_file), "--backend", "ray", "--ranks", "2"]
    command += ["--address", nodes.address, "--run-directory", str(run.root)]
    with once(lambda: len(committed(run)) > 0, nodes.kill_head):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        f"error: the head of the Ray cluster {nodes.address} does not answer any more; start the cluster again, and "
        "the same command goes on from the last checkpoint"
    ) in done.stderr.splitlines(), done.stderr
    assert "Traceback" not in done.stderr
    assert main(["checkpoint", "verify", str(run.root)]) == 0


def committed(run: RunPaths) -> list[str]:
    """Return the names of the committed checkpoints."""
    return [path.name for path in run.all_checkpoints()]
