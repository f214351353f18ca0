"""The local backend: the ranks of a phase as processes of this machine, started together and ended together.

Processes are forked from a server that has imported everything already (measured: a group is ready in
about a second instead of six). Each is in its own session, so that Ctrl-C in a terminal reaches only the
driver, which passes it on once. If one rank fails, the others are ended and its last words are the message.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection, forkserver, get_context
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from launcher.interruption import StopFlag, signals_noted
from launcher.phases import Outcome, PhaseTask, Status
from launcher.run_directory import RunDirectory
from longformer.errors import LongformerError

EXIT_STOPPED = 75
"""Stopped on request after committing a checkpoint: sysexits' "temporary failure, try again"."""
EXIT_EXPECTED = 1
EXIT_UNEXPECTED = 70

_PRELOADED = ["launcher.worker"]
_SECONDS_TO_FOLLOW = 60.0
"""How long the other ranks may take to end after the first has ended in good order."""


def warm_up() -> None:
    """Start the server that ranks are forked from; it imports in the background while the driver prepares."""
    # CUDA must not be initialised before the fork; NVML tells torch about devices without that.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    _context().set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()


@dataclass
class LocalBackend:
    """Runs phases on this machine.

    Args:
        stop: the driver's flag; set, it is passed on to the ranks.
        lock: file descriptor of the run directory's lock, which the ranks hold too.
    """

    stop: StopFlag
    lock: int

    def run_phase(self, task: PhaseTask) -> Outcome:
        """Run the ranks of a phase; return how the first that did not end well ended, else that all completed."""
        warm_up()
        logs = [RunDirectory(task.run_directory).log_file(task.phase_index, rank) for rank in range(task.ranks)]
        with tempfile.TemporaryDirectory(prefix="longformer-") as meeting_place:
            rendezvous = f"file://{meeting_place}/ranks"
            processes = [
                _context().Process(target=_run_rank, args=(task, rank, rendezvous, logs[rank], DupFd(self.lock)))
                for rank in range(task.ranks)
            ]
            try:
                for process in processes:
                    process.start()
                first = self._wait(processes)
            finally:
                _end(processes)
        if first is None:
            return Outcome(Status.COMPLETED)
        code = processes[first].exitcode
        if code == EXIT_STOPPED or (self.stop() and code in (-signal.SIGTERM, -signal.SIGKILL)):
            return Outcome(Status.STOPPED)
        return Outcome(Status.FAILED, _last_words(first, code, logs[first]))

    def _wait(self, processes: list[ForkServerProcess]) -> int | None:
        """Return the first rank that did not complete, as soon as there is one and the others have followed."""
        passed_on = 0
        while running := [process for process in processes if process.exitcode is None]:
            failed = [rank for rank, process in enumerate(processes) if process.exitcode]
            if failed:
                first = min(failed, key=lambda rank: _severity(processes[rank].exitcode))
                if processes[first].exitcode == EXIT_STOPPED:
                    _wait_at_most(running, _SECONDS_TO_FOLLOW)
                return first
            if self.stop.requests > passed_on:
                passed_on = self.stop.requests
                for process in running:
                    (process.terminate if passed_on == 1 else process.kill)()
            connection.wait([process.sentinel for process in running], timeout=0.1)
        return next((rank for rank, process in enumerate(processes) if process.exitcode), None)


def _run_rank(task: PhaseTask, rank: int, rendezvous: str, log: Path, lock: Any) -> None:
    """Be one rank, from the fork to the exit code."""
    os.setsid()
    _print_into(log)
    driver = os.getppid()
    with signals_noted() as flag:
        try:
            lock.detach()  # held until this process ends, so that no other run starts beside an orphan
            _share_cores(task.ranks)
            code = _train(task, rank, rendezvous, lambda: flag() or os.getppid() != driver)
        except (LongformerError, DataError) as error:
            print(f"error: {error}", file=sys.stderr)
            code = EXIT_EXPECTED
        except Exception:
            traceback.print_exc()
            code = EXIT_UNEXPECTED
        sys.stdout.flush()
        sys.stderr.flush()
        # At once: a failed rank that lingers would let the others fail first, and theirs would be the message.
        os._exit(code)


def _train(task: PhaseTask, rank: int, rendezvous: str, stop_requested: Any) -> int:
    from launcher.worker import train_one_phase
    from longformer.training.distributed import process_group
    from longformer.training.loop import PhaseOutcome

    with process_group(rank=rank, local_rank=rank, world_size=task.ranks, rendezvous=rendezvous) as ranks:
        outcome = train_one_phase(task, ranks, stop_requested)
    return 0 if outcome is PhaseOutcome.COMPLETED else EXIT_STOPPED


def _print_into(log: Path) -> None:
    """Append everything this process prints, from C++ too, to its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)


def _share_cores(ranks: int) -> None:
    """Give each rank its share of the cores, unless the user has decided otherwise."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))


def _end(processes: list[ForkServerProcess]) -> None:
    for process in processes:
        if process.pid is not None and process.exitcode is None:
            process.kill()
    for process in processes:
        if process.pid is not None:
            process.join()


def _wait_at_most(processes: list[ForkServerProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _severity(code: int | None) -> int:
    """Order exit codes seen at the same moment: a cause before what may only be its consequence."""
    if code is not None and code < 0:
        return 0
    return {EXIT_EXPECTED: 1, EXIT_STOPPED: 2}.get(code or 0, 3)


def _last_words(rank: int, code: int | None, log: Path) -> str:
    """Return one sentence on why a rank ended, and where to read on."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", which the system also sends when memory runs out" if -code == signal.SIGKILL else ""
        return f"rank {rank} was ended by {name}{hint} (its log is {log}); resume goes on from the last checkpoint"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else f"rank {rank} ended with code {code} and said nothing"
    return f"{last} (rank {rank}; its log is {log})"


def _context() -> Any:
    return get_context("forkserver")
