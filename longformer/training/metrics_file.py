"""metrics.jsonl: every applied step as one line, cut back on resume to what really counts."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from longformer.errors import LongformerError
from longformer.files import write_atomically
from longformer.training.records import Callback, PhaseInfo, Progress, StepRecord


class MetricsFile(Callback):
    """Append StepRecords to a JSON Lines file; steps after the resumed checkpoint are removed first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def on_phase_start(self, phase: PhaseInfo, progress: Progress) -> None:
        cut_back(self.path, progress.global_step)
        self._file = self.path.open("a", encoding="utf-8")

    def on_step_end(self, record: StepRecord) -> None:
        assert self._file is not None, "on_phase_start opens the file"
        try:
            self._file.write(json.dumps(asdict(record)) + "\n")
            self._file.flush()
        except OSError as error:
            raise LongformerError(
                f"{self.path} cannot be written ({error.strerror}); make room, then resume"
            ) from error

    def on_save(self) -> None:
        # A checkpoint must never be ahead of the records that lead to it, or a power cut would leave a gap.
        assert self._file is not None, "on_phase_start opens the file"
        os.fsync(self._file.fileno())

    def on_phase_end(self, phase: PhaseInfo, evaluation: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.close()


def cut_back(path: Path, global_step: int) -> None:
    """Keeps only the records up to `global_step`; a line torn by a crash goes with the later ones."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["global_step"] > global_step:
            break
        kept.append(line)
    write_atomically(path, "".join(kept).encode())


def losses_until(path: Path, global_step: int, *, phase_index: int, most: int) -> list[float]:
    """Returns the last losses that a phase recorded up to a step of the run, oldest first, at most so many."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    losses = [
        record["loss"]
        for record in records
        if record["phase_index"] == phase_index and record["global_step"] <= global_step
    ]
    return losses[-most:]
