"""Requests to stop: signals become a flag that is looked at where stopping is safe."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The last two are what Slurm sends before a time limit or a preemption when asked to (`--signal`).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopFlag:
    """Counts the requests to stop that this process has received."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self) -> bool:
        """Returns whether stopping was requested."""
        return self.requests > 0


@contextmanager
def signals_noted(*, max_requests: int | None = None) -> Iterator[StopFlag]:
    """Counts SIGNALS while the block runs, instead of dying of them.

    Args:
        max_requests: no more requests than that are counted, however many signals come; None for no limit.
    """
    flag = StopFlag()

    def note(number: int, frame: FrameType | None) -> None:
        flag.requests = flag.requests + 1 if max_requests is None else min(flag.requests + 1, max_requests)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    # A process forked from the server of ranks begins with them blocked: what came meanwhile is noted now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
