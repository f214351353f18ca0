"""The same work alone and beside busy processes, by turns, with threads that sleep while they wait and that spin.

Every measurement has a process of its own, since OpenMP reads its settings when it is loaded.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from statistics import median

from longformer.cpu.openmp import WAIT_POLICY

# Asks for its parent all the time: nothing is left running when that is killed.
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass"

Measure = Callable[[str, Mapping[str, str]], Sequence[float]]
"""From a contender and the environment of its process to the seconds of its runs."""


@dataclass(frozen=True)
class BusyMeasurement:
    """Medians over all runs of a contender, in seconds, and the medians of every turn.

    `wait_policy` is the value of OMP_WAIT_POLICY; None: not set.
    """

    contender: str
    positions: int
    wait_policy: str | None
    busy_processes: int
    quiet_seconds: float
    busy_seconds: float
    quiet_turns: tuple[float, ...]
    busy_turns: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as long it takes beside busy processes."""
        return self.busy_seconds / self.quiet_seconds


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keeps `count` processes busy, and ends them whatever happens."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen([sys.executable, "-c", _BUSY]))
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def compare_busy(
    measure: Measure,
    contenders: Iterable[str],
    *,
    positions: int,
    busy: int,
    repeats: int,
    report: Callable[[str], None],
) -> list[BusyMeasurement]:
    """Measures every contender alone and beside `busy` processes, with and without the wait policy, by turns.

    Raises:
        LongformerError: a measurement failed.
    """
    found: dict[tuple[str, str | None], tuple[list[list[float]], list[list[float]]]] = {
        (contender, policy): ([], []) for contender in contenders for policy in ("PASSIVE", None)
    }
    for turn in range(1, repeats + 1):
        for (contender, policy), turns in found.items():
            unset = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
            environment = unset if policy is None else unset | {WAIT_POLICY: policy}
            for count, of_turns in zip((0, busy), turns, strict=True):
                report(f"{contender}: turn {turn} of {repeats}, beside {count} busy processes")
                with busy_processes(count):
                    of_turns.append(list(measure(contender, environment)))
    return [
        BusyMeasurement(
            contender,
            positions,
            policy,
            busy,
            quiet_seconds=median(chain.from_iterable(quiet)),
            busy_seconds=median(chain.from_iterable(beside_busy)),
            quiet_turns=tuple(map(median, quiet)),
            busy_turns=tuple(map(median, beside_busy)),
        )
        for (contender, policy), (quiet, beside_busy) in found.items()
    ]
