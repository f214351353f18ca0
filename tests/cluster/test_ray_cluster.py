"""On a real Ray cluster of two nodes a run outlives the loss of one, makes way for its return, and heeds every notice."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.backends import ray_train
from launcher.cli import main
from launcher.run_directory import RunDirectory
from tests.faults.tiny_run import once, prepare_text, tiny_config

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'longformer-train[ray]')")

STEPS = 600


class TwoNodes:
    """A cluster whose head and second node have room for one rank each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 80_000_000}
        self.cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
        self._small = small
        self.add_second()

    def add_second(self) -> None:
        self.second = self.cluster.add_node(**self._small)

    def kill_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    two = TwoNodes()
    yield two
    two.cluster.shutdown()


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without dropout, whose losses do not depend on the number of ranks; it takes long enough to be disturbed."""
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
    try:
        return json.loads(RunDirectory(directory).ranks_file.read_text())["ranks"]
    except FileNotFoundError:
        return []


def train(run_file: Path, directory: Path, nodes: TwoNodes, *options: str) -> int:
    where = ["--backend", "ray", "--address", nodes.cluster.address, "--run-directory", str(directory)]
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
    seen: list[int] = []

    def wait(condition: Callable[[list[dict[str, Any]]], bool]) -> None:
        while not condition(ranks_of(run)):
            assert not (run / "report").exists(), "the run ended before it could be disturbed again"
            time.sleep(0.02)
        seen.append(len(ranks_of(run)))

    def disturb() -> None:
        wait(lambda ranks: len(ranks) == 2)
        nodes.kill_second()
        wait(lambda ranks: len(ranks) == 1 and ranks[0]["step"] > 60)
        nodes.add_second()
        wait(lambda ranks: len(ranks) == 2)

    with once(lambda: len(losses(run)) >= 50, disturb):
        assert train(run_file, run, nodes, "--ranks", "1-2") == 0
    warned = capsys.readouterr().err
    assert seen == [2, 1, 2], warned
    assert "was lost; going on from the last checkpoint" in warned
    assert "there is room for 2 ranks now" in warned
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in expected], rel=1e-3)
