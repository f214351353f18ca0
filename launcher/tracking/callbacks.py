"""Keeps MLflow up to date with a run: one MLflow run per training, whatever the number of ranks and restarts.

metrics.jsonl is the truth and MLflow follows it from a background thread, so tracking neither slows
training nor loses a step when its server is away for a while: what is missing is sent later, in order.
No failure of MLflow ends a training; it is warned of once.
"""

import sys
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from launcher.config.mlflow_address import address_of_run
from launcher.runs.run import Run
from longformer.training.records import Callback, PhaseInfo, Progress

if TYPE_CHECKING:  # importing MLflow takes seconds: it happens where it is first needed, off the training thread
    from launcher.tracking.run import MlflowRun, SystemMonitor

Result = TypeVar("Result")

SECONDS_BETWEEN_UPLOADS = 5.0
LONGEST_GOODBYE_SECONDS = 30.0
"""How long the end of a phase waits for its last upload; `finish_run` sends what is left."""


def start_run(run: Run) -> None:
    """Goes on with the MLflow run of a training, or start it; where MLflow cannot be reached, that is done later."""
    run.paths.write_identity(replace(run.paths.identity(), mlflow_status=None))
    _Tolerant(run, "training goes on, its steps are kept in metrics.jsonl and sent when MLflow is back").attempt(
        lambda: _mlflow_run(run).mark_running()
    )


def finish_run(run: Run, *, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    """Sends everything MLflow does not have yet, then report and model, and closes the run."""

    def finish() -> None:
        tracked = _mlflow_run(run)
        try:
            tracked.send_steps()
            tracked.send_evaluations()
            tracked.send_checkpoints()
            tracked.send_phases()
            tracked.send_report()
        finally:
            tracked.end(status)
        run.paths.write_identity(replace(run.paths.identity(), mlflow_status=status))

    _Tolerant(run, f"`longformer resume {run.paths.in_shell}` sends what is missing when MLflow is back").attempt(
        finish
    )


class _FollowingCallback(Callback):
    """Does something every few seconds in a thread of its own while training runs."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tolerant = _Tolerant(
            run, "training goes on, its steps are kept in metrics.jsonl and sent when MLflow is back"
        )
        self._stop = threading.Event()
        # A daemon, so that a training that ends in an error is not held up.
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def on_phase_start(self, phase: PhaseInfo, progress: Progress) -> None:
        self._thread.start()

    def on_phase_end(self, phase: PhaseInfo, evaluation: dict[str, Any]) -> None:
        self._stop.set()
        self._thread.join(LONGEST_GOODBYE_SECONDS)

    def _follow(self) -> None:
        last_time = False
        while not last_time:
            last_time = self._stop.wait(SECONDS_BETWEEN_UPLOADS)
            self._tolerant.attempt(lambda: self._look(last_time=last_time))  # noqa: B023

    @abstractmethod
    def _look(self, *, last_time: bool) -> None:
        """Does what is to be done now; called until it was the last time."""


class MlflowCallback(_FollowingCallback):
    """Sends steps, checkpoints and phase results while training runs; for the first rank."""

    _tracked: "MlflowRun | None" = None

    def _look(self, *, last_time: bool) -> None:
        self._tracked = self._tracked or _mlflow_run(self._run)
        self._tracked.send_steps()
        self._tracked.send_evaluations()
        self._tracked.send_checkpoints()
        if last_time:
            self._tracked.send_phases()


class SystemMetricsCallback(_FollowingCallback):
    """Sends processor, memory, disk, network and GPU of a machine; for the first rank on it.

    They are of the moment: those of an outage of MLflow are not sent later.
    """

    _monitor: "SystemMonitor | None" = None

    def _look(self, *, last_time: bool) -> None:
        if last_time:
            if self._monitor is not None:
                self._monitor.finish()
        # The first rank of all makes the run, where the driver could not.
        elif (self._monitor is None or self._monitor.has_ended) and self._run.paths.identity().mlflow_run_id:
            self._monitor = _mlflow_run(self._run).watch_system()


class _Tolerant:
    """Turns any failure into a warning the first time, and into nothing from then on.

    Args:
        run: whose MLflow run it is about.
        remedy: how the warning ends.
    """

    def __init__(self, run: Run, remedy: str) -> None:
        self._run = run
        self._remedy = remedy
        self._warned = False

    def attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            if not self._warned:
                self._warned = True
                from launcher.tracking.client import in_one_sentence

                address = address_of_run(self._run.config.tracking.uri, self._run.paths.root)
                print(f"warning: {in_one_sentence(error, address)}; {self._remedy}", file=sys.stderr, flush=True)


def _mlflow_run(run: Run) -> "MlflowRun":
    from launcher.tracking.run import MlflowRun

    return MlflowRun(run)
