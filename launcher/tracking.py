"""Keeps MLflow up to date with a run: one MLflow run per training, whatever the number of ranks and restarts.

metrics.jsonl is the truth and MLflow follows it from a background thread, so tracking neither slows
training nor loses a step when its server is away for a while: what is missing is sent later, in order.
No failure of MLflow ends a training; it is warned of once.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from launcher.run_directory import RunDirectory
from launcher.run_file import RunConfig
from longformer.training.callbacks.callback import Callback
from longformer.training.records import PhaseInfo, Progress

if TYPE_CHECKING:  # importing MLflow takes seconds: it happens where it is first needed, off the training thread
    from launcher.mlflow_run import MlflowRun

Result = TypeVar("Result")

SECONDS_BETWEEN_UPLOADS = 5.0
LONGEST_GOODBYE_SECONDS = 30.0
"""How long the end of a phase waits for its last upload; `finish_run` sends what is left."""


def start_or_continue_run(config: RunConfig, run_directory: Path) -> str | None:
    """Return the id of the MLflow run of a training: the one in identity.json, else that of a new one.

    None when there is none yet and MLflow cannot be reached; the training then goes on without it.
    """
    directory = RunDirectory(run_directory)
    known = directory.identity().mlflow_run_id if directory.exists else None

    def start() -> str:
        from launcher.mlflow_run import MlflowRun

        return MlflowRun.continue_or_create(known, config, directory).run_id

    return _Tolerant().attempt(start) or known


def finish_run(
    run_id: str, config: RunConfig, run_directory: Path, *, status: Literal["FINISHED", "FAILED", "KILLED"]
) -> None:
    """Send everything MLflow does not have yet, then report and model, and close the run."""

    def finish() -> None:
        from launcher.mlflow_run import MlflowRun

        run = MlflowRun(run_id, config, RunDirectory(run_directory))
        try:
            run.send_steps()
            run.send_phases()
            run.send_report()
        finally:
            run.end(status)

    _Tolerant().attempt(finish)


class MlflowCallback(Callback):
    """Sends steps, phase results and system metrics while training runs; for rank 0."""

    def __init__(self, run_id: str, config: RunConfig, run_directory: Path) -> None:
        self._run_id = run_id
        self._config = config
        self._directory = RunDirectory(run_directory)
        self._stop = threading.Event()
        # A daemon, so that a training that ends in an error is not held up.
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def on_phase_start(self, phase: PhaseInfo, progress: Progress) -> None:
        self._thread.start()

    def on_phase_end(self, phase: PhaseInfo, evaluation: dict[str, Any]) -> None:
        self._stop.set()
        self._thread.join(LONGEST_GOODBYE_SECONDS)

    def _follow(self) -> None:
        tolerant = _Tolerant()
        run = None
        system_metrics = None
        while True:
            last_time = self._stop.wait(SECONDS_BETWEEN_UPLOADS)
            run = run or tolerant.attempt(self._connect)
            if run is not None:
                system_metrics = system_metrics or tolerant.attempt(run.watch_system)
                tolerant.attempt(run.send_steps)
            if last_time:
                break
        if system_metrics is not None:
            tolerant.attempt(system_metrics.finish)
        if run is not None:
            tolerant.attempt(run.send_phases)

    def _connect(self) -> "MlflowRun":
        from launcher.mlflow_run import MlflowRun

        return MlflowRun(self._run_id, self._config, self._directory)


class _Tolerant:
    """Turns any failure into None and, the first time, a warning."""

    def __init__(self) -> None:
        self._warned = False

    def attempt(self, action: Callable[[], Result]) -> Result | None:
        try:
            return action()
        except Exception as error:
            if not self._warned:
                self._warned = True
                print(
                    f"warning: MLflow does not answer ({_first_line(error)}); training goes on without it and its "
                    "steps, kept in metrics.jsonl, are sent when it is back",
                    file=sys.stderr,
                )
            return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
