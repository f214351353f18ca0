"""The local backend: the ranks of a phase as processes of this machine, started together and ended together.

Processes are forked from a server that has imported everything already, which saves each phase the five
seconds of imports. Each is in its own session, so that Ctrl-C in a terminal reaches only the driver, which
passes it on once. If one rank fails, the others are ended and its last words are the message.
"""

import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from launcher.backends.local.rank import (
    EXIT_EXPECTED,
    EXIT_ROLLED_BACK,
    EXIT_STALLED,
    EXIT_STOPPED,
    RanksHere,
    run_rank,
)
from launcher.runs.run import Run
from launcher.tasks.registry import TASKS
from launcher.training.phases import Outcome, PhaseTask, Status
from launcher.training.resource_monitor import ShortageWatch
from launcher.training.signals import SIGNALS, StopFlag

_SECONDS_TO_FOLLOW = {EXIT_STOPPED: 60.0, EXIT_ROLLED_BACK: 60.0, EXIT_STALLED: 15.0}
"""How long the other ranks may take to end after the first has ended so; after other endings they are ended at once."""
_IMPORTED_BEFORE_THE_FORK = [
    "launcher.training.worker",
    "launcher.tracking.run",
    "mlflow.store.tracking.sqlalchemy_store",
    *(f"{spec.folder}.task" for spec in TASKS.values()),
]
"""What ranks need; MLflow's store of the first rank would else take two seconds of every phase."""
LEAST_SEVERE = 3
"""Of what may only be the consequence of a failure elsewhere."""
_SECONDS_TO_STOP = 300.0
"""How long ranks may take from a request to stop to their checkpoint before they are ended."""


def warm_up() -> None:
    """Starts the server that ranks are forked from; it imports in the background while the driver prepares."""
    # CUDA must not be initialised before the fork; NVML tells torch about devices without that.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # MLflow, which DeepSpeed imports, would call home from a thread, and threads do not survive a fork.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    _context().set_forkserver_preload(_IMPORTED_BEFORE_THE_FORK)
    # A signal to the whole group, as Slurm sends it, must not end the server: through it the driver learns how ranks
    # end. Blocked signals stay blocked in what is started, and nothing is lost; `signals_noted` lets them through.
    resource_tracker.ensure_running()  # it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Ending:
    """How the ranks of one machine ended."""

    outcome: Outcome
    severity: int
    """Of what happens on several machines at about the same moment, the lowest is the cause of the others."""


@dataclass
class LocalBackend:
    """Runs phases on this machine.

    Args:
        stop: the driver's flag; the first request is passed on to the ranks, the second ends them, as does
            a first one that takes too long. A stop file in the run directory counts like a request.
        lock: file descriptor of the run directory's lock, which the ranks hold too; None to leave that to the driver.
        warn: is told when disk or memory run short; when memory is about to end, the ranks are asked to stop.
    """

    stop: StopFlag
    lock: int | None
    warn: Callable[[str], None]

    def run_phase(self, task: PhaseTask) -> Outcome:
        """Runs the ranks of a phase; tells how the first that did not complete ended, or that all completed."""
        with TemporaryDirectory(prefix="longformer-") as meeting_place:
            here = RanksHere(range(task.ranks), Path(meeting_place, "ranks").as_uri())
            return self.run_ranks(task, here).outcome

    def run_ranks(self, task: PhaseTask, here: RanksHere) -> Ending:
        """Runs those ranks of a phase that belong on this machine."""
        warm_up()
        ranks: list[_Rank] = []
        try:
            for number in here.numbers:
                ranks.append(_start(task, number, here, self.lock))
            first = self._wait(ranks, task)
        finally:
            for rank in ranks:
                rank.process.kill()
            for rank in ranks:
                rank.process.join()
        if first is None:
            return Ending(Outcome(Status.COMPLETED), LEAST_SEVERE)
        return Ending(self._outcome(first, ranks, task.run), first.severity())

    def _outcome(self, first: "_Rank", ranks: "list[_Rank]", run: Run) -> Outcome:
        if first.code == EXIT_ROLLED_BACK:
            return Outcome(
                Status.ROLLED_BACK,
                f"{run.paths.latest_skip_reason()}; going on from the last checkpoint without that batch",
            )
        if first.code == EXIT_STALLED:
            places = "; ".join(rank.why_it_stalled() for rank in ranks)
            limit = run.config.training.stall_seconds
            return Outcome(Status.FAILED, f"no step for {limit} seconds: {places} (stacks are in {first.log.parent})")
        if first.code == EXIT_STOPPED or (self.stop() and first.code in (-signal.SIGTERM, -signal.SIGKILL)):
            return Outcome(Status.STOPPED)
        return Outcome(Status.FAILED, f"{first.why_it_ended()} (rank {first.number}; its log is {first.log})")

    def _wait(self, ranks: "list[_Rank]", task: PhaseTask) -> "_Rank | None":
        """Returns the first rank that did not complete, as soon as there is one, or None when all have completed."""
        passed_on = 0
        deadline = math.inf
        run = task.run
        shortages = ShortageWatch(run.checkpoints_directory(task.phase_index), self.warn)
        while running := [rank for rank in ranks if rank.code is None]:
            if any(rank.code for rank in ranks):
                break
            shortages.look()
            self.stop.requests = max(self.stop.requests, run.paths.stop_requests(), int(shortages.must_stop))
            if time.monotonic() > deadline:
                self.stop.requests = max(self.stop.requests, 2)
            if self.stop.requests > passed_on:
                if passed_on == 0:
                    deadline = time.monotonic() + _SECONDS_TO_STOP
                passed_on = self.stop.requests
                for rank in running:
                    (rank.process.terminate if passed_on == 1 else rank.process.kill)()
            connection.wait([rank.process.sentinel for rank in running], timeout=0.1)
        first = min((rank for rank in ranks if rank.code), key=_Rank.severity, default=None)
        if first is not None and first.code in _SECONDS_TO_FOLLOW:
            deadline = time.monotonic() + _SECONDS_TO_FOLLOW[first.code]
            for rank in ranks:
                rank.process.join(max(0.0, deadline - time.monotonic()))
        return first


@dataclass
class _Rank:
    """A rank as the driver sees it."""

    number: int
    process: ForkServerProcess
    last_words: Connection
    log: Path

    @property
    def code(self) -> int | None:
        """The exit code; negative for a signal, None while it runs."""
        return self.process.exitcode

    def severity(self) -> int:
        """Orders what is seen at the same moment: a cause before what may only be its consequence."""
        if self.code is not None and self.code < 0:
            return 0
        return {EXIT_EXPECTED: 1, EXIT_STOPPED: 2}.get(self.code or 0, LEAST_SEVERE)

    def why_it_stalled(self) -> str:
        """Returns where the rank says it hangs."""
        return self.why_it_ended() if self.code == EXIT_STALLED else f"rank {self.number} gives no sign of life"

    def why_it_ended(self) -> str:
        """Returns the rank's own last sentence, or what its exit code says."""
        try:
            return str(self.last_words.recv())
        except EOFError:
            pass
        if self.code is None or self.code >= 0:
            return f"rank {self.number} ended with code {self.code} and said nothing"
        hint = ", which the system also sends when memory runs out" if -self.code == signal.SIGKILL else ""
        name = signal.Signals(-self.code).name
        return f"rank {self.number} was ended by {name}{hint}; resume goes on from the last checkpoint"


def _start(task: PhaseTask, number: int, here: RanksHere, lock: int | None) -> _Rank:
    log = task.run.paths.log_file(task.phase_index, number)
    receiver, sender = _context().Pipe(duplex=False)
    handle = None if lock is None else DupFd(lock)
    process = _context().Process(target=run_rank, args=(task, number, here, log, sender, handle))
    process.start()
    sender.close()  # so that the end of the process is the end of what it can say
    return _Rank(number, process, receiver, log)


def _context() -> Any:
    return get_context("forkserver")
