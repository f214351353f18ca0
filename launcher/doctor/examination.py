"""All checks of one machine, side by side: none of them raises, and none holds up the answer for longer than its time.

A check that needs more time than it has (a file system or a server that hangs) is left behind and reported.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from launcher.doctor.devices import check_devices
from launcher.doctor.finding import Finding, Level
from launcher.doctor.network import check_host_name, check_loopback, check_ports
from launcher.doctor.packages import check_packages, check_python
from launcher.doctor.services import check_mlflow, check_ray, check_slurm
from launcher.doctor.storage import check_room, check_shared_memory, check_storage

Check = Callable[[], list[Finding]]

LONGEST_SECONDS = 60.0
"""Importing torch or MLflow from a cold network file system can take half of it."""


def checks_of_this_machine(directory: Path, tracking: str | None) -> dict[str, Check]:
    """Returns the checks by name.

    Args:
        directory: where runs are to lie; it need not exist.
        tracking: MLflow address; None = the embedded store beside the runs.
    """
    return {
        "python": check_python,
        "packages": check_packages,
        "devices": check_devices,
        "storage": lambda: check_storage(directory),
        "disk": lambda: check_room(directory),
        "shared memory": check_shared_memory,
        "host name": check_host_name,
        "loopback": check_loopback,
        "ports": check_ports,
        "Slurm": check_slurm,
        "Ray": check_ray,
        "MLflow": lambda: check_mlflow(directory, tracking),
    }


def examine(checks: Mapping[str, Check], *, seconds: float = LONGEST_SECONDS) -> list[Finding]:
    """Runs all checks at the same time and returns what they find, in their order, within so many seconds."""
    found: dict[str, list[Finding]] = {}

    def run(name: str, check: Check) -> None:
        try:
            found[name] = check()
        except Exception as error:  # whatever it is, the other checks are still of use
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            found[name] = [Finding(name, Level.MISS, f"the check failed: {reason}", "See to what the message says.")]

    # Daemons: a thread that hangs in a system call does not keep the process from ending.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = {name: [_late(name, seconds)] for name in checks if name not in found}
    return [finding for name in checks for finding in (found | late)[name]]


def _late(name: str, seconds: float) -> Finding:
    remedy = "See whether the file system, driver or server behind this check hangs, then ask again."
    return Finding(name, Level.MISS, f"no answer within {seconds:g} seconds", remedy)
