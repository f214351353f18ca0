"""Notices when training stands still, and where: a hung rank would otherwise wait, and be waited for, without end."""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS_FOR_PYTHON = 10
"""How long the watching thread has before the stacks are dumped without Python's help, and the process ended."""


@contextmanager
def watched(limit_seconds: float, on_stall: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """While the block runs, yield a function to call at every sign of life.

    Without one for `limit_seconds` all threads' stacks are printed to standard error, then `on_stall` is called, from
    another thread, with where the thread is that entered the block. Where even that is impossible, because that thread
    never lets go of the interpreter, the process ends with its stacks printed.
    """
    watched_thread = threading.get_ident()
    last = time.monotonic()
    over = threading.Event()

    def beat() -> None:
        nonlocal last
        last = time.monotonic()
        faulthandler.dump_traceback_later(limit_seconds + _SECONDS_FOR_PYTHON, exit=True)

    def watch() -> None:
        while not over.wait(min(1.0, limit_seconds / 4)):
            if time.monotonic() - last > limit_seconds:
                faulthandler.dump_traceback(all_threads=True)
                on_stall(place_of_thread(watched_thread))
                return

    beat()
    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield beat
    finally:
        over.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


def place_of_thread(identity: int) -> str:
    """Returns the innermost function that a thread is in: `all_reduce (distributed_c10d.py:2810)`."""
    frame = sys._current_frames()[identity]
    return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
