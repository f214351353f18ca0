"""Work in a process of its own, which may be killed on the way."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def status_of_child(work: Callable[[], object]) -> int:
    """Run `work` in a process of its own; return its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def status_when_killed(work: Callable[[], object], folder: Path, operation: int) -> int:
    """Run `work` in a process of its own that kills itself at so many file operations below `folder`."""

    def work_until_killed() -> None:
        seen = 0

        def kill_when_reached(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if str(folder) in str(arguments):
                seen += 1
                if seen == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill_when_reached)
        work()

    return status_of_child(work_until_killed)
