"""A whole run in two short phases, small enough to be killed often, and the means to kill it."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from data_pipeline.shards.prepared import PreparedData
from launcher.backends.local.backend import LocalBackend, warm_up
from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.data import InputData
from launcher.training.phases import Outcome, run_phases
from launcher.training.signals import StopFlag
from tests.data_pipeline.preparing import prepare_characters
from tests.faults.holding import held_at, holdable_ranks, release

STEPS = (14, 10)
CHECKPOINT_EVERY = 4


def prepare_text(directory: Path) -> PreparedData:
    """Return 60,000 characters of prepared random words."""
    generator = random.Random(1)
    words = ["".join(generator.choices("abcdefgh", k=generator.randint(1, 7))) for _ in range(50)]
    source = directory / "words.txt"
    source.write_text(" ".join(generator.choices(words, k=15_000))[:60_000])
    return prepare_characters("text", source=source, output=directory / "prepared")


def tiny_config(
    directory: Path,
    data: PreparedData,
    *,
    dropout: float = 0.1,
    steps: tuple[int, int] = STEPS,
    loader_workers: int = 0,
    batch_size: int = 4,
    learning: Mapping[str, Any] | None = None,
    **training: Any,
) -> RunConfig:
    """Return the config of the run; dropout makes every rank's random state matter, `learning` goes to both phases."""
    phase = {"learning_rate": 1e-2, "warmup_steps": 3, "batch_size": batch_size, **(learning or {})}
    content = {
        "name": "tiny",
        "model": {"layers": 2, "hidden_size": 16, "heads": 2, "feedforward_size": 32, "dropout": dropout},
        "data": {
            "recipe": "text",
            "source": str(directory),
            "directory": data.location,
            "loader_workers": loader_workers,
        },
        "training": {"checkpoint_every_steps": CHECKPOINT_EVERY, "checkpoints_kept": 2} | training,
        "phases": [
            phase | {"name": "short", "sequence_length": 16, "windows": [4, 4], "steps": steps[0]},
            phase | {"name": "long", "sequence_length": 32, "windows": [8, 8], "steps": steps[1], "optimizer": "keep"},
        ],
        "evaluation": {"sequence_length": 64, "stride": 32, "batch_size": 4, "limit_tokens": 500},
    }
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return load(path)


class TinyRun:
    """One run directory and what one may do with it."""

    def __init__(self, directory: Path, config: RunConfig, data: PreparedData | InputData, *, ranks: int = 2) -> None:
        self.run = Run(RunPaths(directory), config)
        self.ranks = ranks
        self.warnings: list[str] = []
        with self.run.paths.locked():
            place = data.directory if isinstance(data, InputData) else Path(data.location)
            self.run.create(ranks=ranks, data_directory=place, data_fingerprint=data.fingerprint)

    def go(self, stop: StopFlag | None = None) -> Outcome:
        """Start or resume the run and wait for its end."""
        warm_up()
        with self.run.paths.locked() as lock, holdable_ranks():
            backend = LocalBackend(stop or StopFlag(), lock, self.warnings.append)
            return run_phases(self.run, backend, ranks=self.ranks, warn=self.warnings.append)

    @contextmanager
    def disturbed_at(self, place: int | str, action: Callable[[], None]) -> Iterator[None]:
        """While the block runs, act once when the run gets to a global step, or a place that `held_at` knows."""
        with held_at(self.run.paths.root, str(place)) as waits:

            def act() -> None:
                try:
                    action()
                finally:
                    release(self.run.paths.root)

            with once(waits, act):
                yield

    def losses(self) -> list[tuple[int, float]]:
        """Return (global step, loss) of every record."""
        return [(record["global_step"], record["loss"]) for record in self.records()]

    def records(self) -> list[dict[str, Any]]:
        """Return the whole lines of metrics.jsonl."""
        if not self.run.paths.metrics_file.exists():
            return []
        lines = self.run.paths.metrics_file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def evaluations(self) -> list[dict[str, Any]]:
        """Return the scores of the finished phases."""
        return [
            {split: json.loads(path.read_text()).get(split) for split in ("validation", "test")}
            for path in sorted(self.run.paths.root.glob("phases/*/result/evaluation.json"))
        ]

    def evaluated(self) -> list[dict[str, Any]]:
        """Return the lines of evaluations.jsonl."""
        return [json.loads(line) for line in self.run.paths.evaluations_file.read_text().splitlines()]

    def checkpoints(self, phase: int = 0) -> list[str]:
        """Return the names of a phase's committed checkpoints."""
        return sorted(path.name for path in self.run.checkpoints_directory(phase).glob("step-*"))

    def has_reached(self, global_step: int) -> Callable[[], bool]:
        """Return a condition: the step has been recorded."""
        return lambda: any(record["global_step"] >= global_step for record in self.records())

    def is_saving(self) -> bool:
        """Return whether a checkpoint is being written at this moment."""
        return any(self.run.paths.root.glob("phases/*/checkpoints/.step-*.staging"))


def rank_processes(of: int | None = None) -> list[psutil.Process]:
    """Return the living ranks started by a process (this one by default): they lead sessions of their own."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        try:
            if os.getsid(process.pid) == process.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def kill_all_ranks() -> None:
    """Send SIGKILL to every rank at once; once one is gone, the driver may be faster with the others."""
    for process in rank_processes():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


@contextmanager
def once(condition: Callable[[], bool], action: Callable[[], None]) -> Iterator[None]:
    """While the block runs, wait for the condition in the background and then act; it must come true.

    If the action fails, the ranks are killed, so that what waits for them ends, and its failure is that of the block.
    """
    over = threading.Event()

    def watch() -> bool:
        while not over.is_set():
            if condition():
                try:
                    action()
                except BaseException:
                    kill_all_ranks()
                    raise
                return True
            time.sleep(0.001)
        return False

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
            assert done.result(), "the run ended before it could be disturbed"
