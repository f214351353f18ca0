"""What the driver and the ranks of a phase tell each other on a Ray cluster: where each rank is, and "stop"."""

import os
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from launcher.backends.local.rank import EXIT_STALLED, EXIT_UNEXPECTED
from longformer.training.records import Callback, PhaseInfo, Progress, StepRecord
from longformer.training.watchdog import place_of_thread

_SECONDS_BETWEEN_SIGNS = 1.0
_SECONDS_WITHOUT_DRIVER = 60.0
"""After so long without an answer a rank ends: nobody would start it again or tell it to stop."""


@dataclass(frozen=True)
class Heartbeat:
    """Where a rank is."""

    rank: int
    host: str
    node: str
    """Ray's identifier of the machine."""
    process: int
    step: int
    """Steps of the phase done."""
    place: str
    """The function it is in."""
    silent_seconds: float = 0.0
    """How long ago it said so."""
    stalled: bool = False
    """Whether this was its last word because it hung."""


class HeartbeatStore:
    """Lives in a process of its own beside the driver, as an actor of Ray."""

    def __init__(self) -> None:
        self._heartbeats: dict[int, tuple[float, Heartbeat]] = {}
        self._must_stop = False

    def post(self, heartbeat: Heartbeat) -> bool:
        """Takes a rank's heartbeat; returns whether it is to stop at its next step border, after a checkpoint."""
        self._heartbeats[heartbeat.rank] = (time.monotonic(), heartbeat)
        return self._must_stop

    def ask_to_stop(self) -> None:
        """Answers every rank from now on that it is to stop."""
        self._must_stop = True

    def heartbeats(self) -> list[Heartbeat]:
        """Returns the newest heartbeat of every rank, in their order."""
        now = time.monotonic()
        return [replace(heartbeat, silent_seconds=now - at) for _, (at, heartbeat) in sorted(self._heartbeats.items())]


class HeartbeatSender(Callback):
    """A rank's side of the store: posts from a thread, so that what hangs is seen to hang.

    Args:
        ray: the module.
        store: handle of the actor that is a HeartbeatStore.
        heartbeat: the rank and its machine.
    """

    def __init__(self, ray: Any, store: Any, heartbeat: Heartbeat) -> None:
        self._ray, self._store = ray, store
        self._heartbeat = heartbeat
        self._training_thread = threading.get_ident()
        self._must_stop = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._post_now_and_then, name="heartbeats", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_SECONDS_BETWEEN_SIGNS)

    def stop_requested(self) -> bool:
        """Returns whether the driver asks this rank to stop."""
        return self._must_stop

    def end_stalled(self, place: str) -> None:
        """Says where this rank hangs, and ends its process."""
        try:
            self._post(replace(self._heartbeat, place=place, stalled=True))
        finally:
            os._exit(EXIT_STALLED)

    def on_phase_start(self, phase: PhaseInfo, progress: Progress) -> None:
        """Takes in where the phase goes on."""
        self._heartbeat = replace(self._heartbeat, step=progress.step)

    def on_step_end(self, record: StepRecord) -> None:
        """Takes in the step."""
        self._heartbeat = replace(self._heartbeat, step=record.step)

    def _post_now_and_then(self) -> None:
        last_answer = time.monotonic()
        while True:
            try:
                self._must_stop = self._post(replace(self._heartbeat, place=place_of_thread(self._training_thread)))
                last_answer = time.monotonic()
            except self._ray.exceptions.RayError:
                if time.monotonic() - last_answer > _SECONDS_WITHOUT_DRIVER:
                    os._exit(EXIT_UNEXPECTED)
            if self._over.wait(_SECONDS_BETWEEN_SIGNS):
                return

    def _post(self, heartbeat: Heartbeat) -> bool:
        return bool(self._ray.get(self._store.post.remote(heartbeat), timeout=_SECONDS_WITHOUT_DRIVER / 4))
