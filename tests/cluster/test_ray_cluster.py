"""On a real Ray cluster a run outlives the loss of a node and makes way for its return."""

import json
import os
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

from launcher.backends import ray_train
from launcher.backends.ray_cluster import connected
from launcher.cli import main
from launcher.run_directory import RunDirectory
from longformer.errors import LongformerError
from tests.faults.tiny_run import once, prepare_text, tiny_config

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'longformer-train[ray]')")

STEPS = 600


class TwoNodes:
    """A cluster whose head and second node have room for one rank each."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._directory = directory
        port = self.address.split(":")[1]
        alone = ("--node-ip-address", "127.0.0.1", "--include-dashboard", "false", "--temp-dir", str(directory))
        self.head = self._start("--head", "--port", port, *alone)
        self.add_second()

    def add_second(self) -> None:
        """Start the second node, again."""
        self.second = self._start("--address", self.address)

    def kill_second(self) -> None:
        """Take a node's power away: its daemons and all that they have started end at once."""
        end(self.second)

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


def end(daemon: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started."""
    if daemon.poll() is not None:
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
            two.wait_for(2)
            yield two
        finally:
            end(two.second)
            end(two.head)


@pytest.fixture
def nodes(cluster: TwoNodes) -> TwoNodes:
    """The cluster with both of its nodes."""
    if cluster.second.poll() is not None:
        cluster.add_second()
    cluster.wait_for(2)
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
    file = RunDirectory(directory).metrics_file
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(record["global_step"], record["loss"]) for record in records]


def ranks_of(directory: Path) -> list[dict[str, Any]]:
    """Return where the driver says each rank is."""
    return RunDirectory(directory).ranks()


def wait_until(run: Path, condition: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Wait for a condition on where the ranks of a run are."""
    while not condition(ranks_of(run)):
        assert not (run / "report").exists(), "the run ended before it could be disturbed"
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
    monkeypatch.setattr(ray_train, "_SECONDS_TO_GROW", 1.0)
    run = tmp_path / "run"

    def disturb() -> None:
        wait_until(run, lambda ranks: len(ranks) == 2)
        nodes.kill_second()
        wait_until(run, lambda ranks: len(ranks) == 1 and ranks[0]["step"] > 60)
        nodes.add_second()
        wait_until(run, lambda ranks: len(ranks) == 2)

    with once(lambda: len(losses(run)) >= 50, disturb):
        assert train(run_file, run, nodes, "--ranks", "1-2") == 0
    warned = capsys.readouterr().err
    assert "was lost; going on from the last checkpoint" in warned
    assert "there is room for 2 ranks now" in warned
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in expected], rel=1e-3)
