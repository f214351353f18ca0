"""Measurements as rows of a JSON file, each in a process of its own with a deadline: no failure is the end of the rest.

Meant for a machine that is at hand for minutes only. A fault on a GPU spoils the process that it happens in, a kernel
may hang, and what was found must be on the disk when the machine goes. Processes are forked from a server that has
imported what they need and has never touched the GPU.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from longformer.benchmarks.memory import how_it_ended
from longformer.files import write_json

Outcome = Literal["measured", "absent", "failed", "stopped", "not begun"]
"""Absent: the machine lacks what the row is about. Stopped: at a deadline."""
Work = Callable[..., dict[str, Any]]
"""From a row's arguments to its result, plain data; a function of a module, which other processes import."""


class Absent(Exception):
    """What a row is to measure is not on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """One measurement: a name, what its work is called with (plain data), and the seconds that it may take."""

    name: str
    arguments: dict[str, Any]
    seconds: float = 60.0


@dataclass(frozen=True)
class _Running:
    row: Row
    process: ForkServerProcess
    begun: float
    ends: float


@dataclass
class Rows:
    """The rows of a file, written anew after every one.

    Args:
        file: JSON file to write.
        header: what to write before the rows.
        minutes: after which what runs is stopped, and nothing more is begun.
        imported: modules that the server of processes imports; none may touch the GPU.
    """

    file: Path
    header: dict[str, Any]
    minutes: float
    imported: Sequence[str] = ()
    records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Else torch asks CUDA itself whether it is there, after which no forked process can use it.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([*self.imported])
        self._end = time.monotonic() + 60 * self.minutes

    def take(self, rows: Iterable[Row], work: Work, *, at_once: int = 1) -> None:
        """Does the work of every row, in order, of so many rows at once; returns when all are written down."""
        waiting = list(rows)
        running: dict[Connection, _Running] = {}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    row = waiting.pop(0)
                    if time.monotonic() < self._end:
                        told_here, begun = self._begin(row, work)
                        running[told_here] = begun
                    else:
                        self._write(row, 0.0, "not begun", reason="the time was up")
                first_end = min((each.ends for each in running.values()), default=0.0)
                told = connection.wait(list(running), timeout=max(0.0, first_end - time.monotonic()))
                for each in [each for each in running if each in told or time.monotonic() >= running[each].ends]:
                    self._finish(running.pop(each), each)
        finally:
            for left in running.values():
                _end_session(left.process)

    def _begin(self, row: Row, work: Work) -> tuple[Connection, _Running]:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(work, row.arguments, theirs))
        process.start()
        theirs.close()
        now = time.monotonic()
        return ours, _Running(row, process, now, min(now + row.seconds, self._end))

    def _finish(self, done: _Running, told: Connection) -> None:
        outcome: Outcome
        if told.poll():
            try:
                outcome, found = told.recv()
            except EOFError:
                done.process.join()
                outcome, found = "failed", {"reason": how_it_ended(done.process.exitcode or 0, 0)}
        else:
            outcome, found = "stopped", {"reason": f"did not end within {time.monotonic() - done.begun:.0f} s"}
        told.close()
        _end_session(done.process)
        self._write(done.row, time.monotonic() - done.begun, outcome, **found)

    def _write(self, row: Row, seconds: float, outcome: Outcome, **found: Any) -> None:
        record = {"name": row.name, "outcome": outcome, "seconds": round(seconds, 1), **found}
        self.records.append(record | {"arguments": row.arguments})
        write_json(self.file, self.header | {"rows": self.records})
        print(f"{seconds:5.1f} s  {row.name}: {found.get('reason') or in_short(found['result'])}", flush=True)


def in_short(result: dict[str, Any]) -> str:
    """Returns the numbers and texts of a result in a line; what is nested stays in the file."""
    parts = []
    for name, value in result.items():
        if isinstance(value, float):
            parts.append(f"{name} {value:.4g}")
        elif isinstance(value, int | str):
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def _work(work: Work, arguments: dict[str, Any], told: Connection) -> None:
    """Tells the outcome of a row, and its result or the reason why there is none, from a session of its own."""
    os.setsid()
    try:
        # Kept as text first: what cannot be written is this row's failure.
        outcome: tuple[Outcome, dict[str, Any]] = "measured", {"result": json.loads(json.dumps(work(**arguments)))}
    except Absent as absent:
        outcome = "absent", {"reason": str(absent)}
    # Out of memory, refused by a compiler, wrong: all of these are findings.
    except Exception as problem:
        traceback.print_exc()
        first_line = (str(problem).strip().splitlines() or [""])[0]
        outcome = "failed", {"reason": f"{type(problem).__name__}: {first_line}"}
    sys.stdout.flush()
    told.send(outcome)


def _end_session(process: ForkServerProcess) -> None:
    """Ends a row's process, and whatever it has started."""
    assert process.pid is not None
    # It leads a group, unless it has only just begun.
    for end in (os.kill, os.killpg):
        with suppress(ProcessLookupError):
            end(process.pid, signal.SIGKILL)
    process.join()
