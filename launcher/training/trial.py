"""What a few steps of a phase took, as the first rank tells the driver of a trial."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from launcher.runs.run import Run
from longformer.files import read_json, write_json


@dataclass(frozen=True)
class Trial:
    """What a phase took here."""

    micro_batch_size: int
    accumulation_steps: int
    seconds_per_step: float
    """Of a whole step, by the fastest of those tried."""
    tokens_per_second: float
    """Over all ranks, padding not counted."""
    memory: int
    """Bytes that training added to what a rank held before; the largest of any rank."""

    def write(self, run: Run, phase_index: int) -> None:
        """Writes into the directory of a run what a phase of it took."""
        write_json(_file(run, phase_index), asdict(self))

    @classmethod
    def read(cls, run: Run, phase_index: int) -> Self:
        """Returns what was written there."""
        return cls(**read_json(_file(run, phase_index)))


def _file(run: Run, phase_index: int) -> Path:
    return run.paths.root / f"trial-{phase_index + 1:02d}.json"
