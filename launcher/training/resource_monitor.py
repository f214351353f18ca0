"""Disk and memory of the machine that runs the ranks: told of when they run short, stopped for before they end."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from launcher.reporting.text import short
from longformer.errors import LongformerError
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.checkpoints.store import committed_checkpoints

SECONDS_BETWEEN_LOOKS = 5.0
CHECKPOINTS_TO_SPARE = 3
"""With less room on the disk than for so many checkpoints there is a warning."""
SCARCE_MEMORY = 0.05
"""Share of the machine's memory below which there is a warning."""
LAST_MEMORY = 0.02
"""Share below which the run stops after a checkpoint, while there is still memory to write one with."""


def disk_shortage(free: int, checkpoint: int) -> str | None:
    """Returns a warning where `free` bytes hold fewer than CHECKPOINTS_TO_SPARE checkpoints of so many bytes."""
    if free >= CHECKPOINTS_TO_SPARE * checkpoint:
        return None
    return f"only {short(free)}B are free on the run's disk, and a checkpoint takes {short(checkpoint)}B; make room"


def memory_shortage(available: int, total: int) -> tuple[str | None, bool]:
    """Returns a warning where memory is scarce, and whether the run must stop."""
    if available >= SCARCE_MEMORY * total:
        return None, False
    must_stop = available < LAST_MEMORY * total
    then = "; the run stops after a checkpoint" if must_stop else ""
    return f"only {short(available)}B of {short(total)}B of memory are available{then}", must_stop


@dataclass
class ShortageWatch:
    """Looks at disk and memory now and then; says each shortage once."""

    checkpoints: Path
    """Directory of the phase's checkpoints."""
    warn: Callable[[str], None]
    must_stop: bool = False
    _next_look: float = field(default_factory=time.monotonic)
    _warned: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Looks, unless that was done a moment ago."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        memory = psutil.virtual_memory()
        message, self.must_stop = memory_shortage(memory.available, memory.total)
        self._warn_once("memory, last" if self.must_stop else "memory", message)
        # A checkpoint may be pruned just now; the next look will do.
        with suppress(LongformerError):
            for checkpoint in committed_checkpoints(self.checkpoints)[-1:]:
                size = sum(file["size"] for file in Manifest.read(checkpoint).files.values())
                self._warn_once("disk", disk_shortage(shutil.disk_usage(self.checkpoints).free, size))

    def _warn_once(self, subject: str, message: str | None) -> None:
        if message is not None and subject not in self._warned:
            self._warned.add(subject)
            self.warn(message)
