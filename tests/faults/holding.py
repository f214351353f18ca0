"""Holds a run at a named place, so that what disturbs it there arrives in time on a slow machine too."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import launcher.training.worker
from launcher.backends.local.rank import run_rank
from launcher.cli import main
from launcher.training.phases import PhaseTask
from longformer.training.metrics_file import MetricsFile
from longformer.training.records import StepRecord

EVALUATION = "evaluation"


@contextmanager
def held_at(run_directory: Path, place: str) -> Iterator[Callable[[], bool]]:
    """Make the first rank wait at a place while the block runs or until the file `hold` is gone.

    Args:
        run_directory: of the run.
        place: the global step after whose record it waits, EVALUATION for the start of an evaluation, or "EVALUATION n"
            for the n-th that its process begins.

    Yields:
        Whether it waits there now.
    """
    hold, waits = _files(run_directory)
    waits.unlink(missing_ok=True)
    hold.write_text(place)
    try:
        yield waits.exists
    finally:
        release(run_directory)


def release(run_directory: Path) -> None:
    """Let the run go on."""
    _files(run_directory)[0].unlink(missing_ok=True)


def holdable_ranks() -> AbstractContextManager[Any]:
    """While it is entered, ranks that this process starts can be held."""
    return mock.patch("launcher.backends.local.backend.run_rank", _run_rank_that_can_be_held)


def _run_rank_that_can_be_held(task: PhaseTask, rank: int, *others: Any) -> None:
    """Be a rank, as `run_rank` is, that waits where it is to be held."""
    hold, waits = _files(task.run.paths.root)

    def wait_at(place: str) -> None:
        if hold.exists() and hold.read_text() == place:
            waits.touch()
            while hold.exists():
                time.sleep(0.001)

    evaluations = count(1)
    write, leaving_if_asked = MetricsFile.on_step_end, launcher.training.worker.leaving_if_asked

    def write_and_wait(file: MetricsFile, record: StepRecord) -> None:
        write(file, record)
        wait_at(str(record.global_step))

    def wait_before_evaluation(*arguments: Any) -> Callable[[int, int], None]:
        if rank == 0:
            wait_at(EVALUATION)
            wait_at(f"{EVALUATION} {next(evaluations)}")
        return leaving_if_asked(*arguments)

    with (
        mock.patch.object(MetricsFile, "on_step_end", write_and_wait),
        mock.patch.object(launcher.training.worker, "leaving_if_asked", wait_before_evaluation),
    ):
        run_rank(task, rank, *others)


def go_on_in_another_process(run_directory: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start `longformer resume` with ranks that can be held."""
    program = "import sys; from tests.faults.holding import resume; sys.exit(resume(sys.argv[1]))"
    return subprocess.Popen([sys.executable, "-c", program, str(run_directory)], stderr=subprocess.PIPE, **options)


def resume(run_directory: str) -> int:
    """Be that process; return its exit code."""
    with holdable_ranks():
        return main(["resume", run_directory])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is true that a process brings about."""
    while not condition():
        assert process.poll() is None, "ended before it could be disturbed"
        time.sleep(0.001)


def _files(run_directory: Path) -> tuple[Path, Path]:
    return run_directory / "hold", run_directory / "waits"
