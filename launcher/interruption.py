"""Requests to stop: signals become a flag that is looked at where stopping is safe."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# The last two are what Slurm sends before a time limit or a preemption when asked to (`--signal`).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopFlag:
    """Counts the requests to stop that this process has received."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self) -> bool:
        """Return whether stopping was requested."""
        return self.requests > 0


@contextmanager
def signals_noted(force: Callable[[int], None] | None = None) -> Iterator[StopFlag]:
    """While the block runs, note the first of SIGNALS instead of dying; call `force` at a second one.

    Args:
        force: what a second signal does; by default it kills this process.
    """
    flag = StopFlag()

    def note(number: int, frame: FrameType | None) -> None:
        flag.requests += 1
        if flag.requests > 1:
            (force or _die)(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
