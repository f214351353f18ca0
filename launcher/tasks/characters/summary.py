"""The numbers of a report: what the table, the plots and summary.json say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseSummary:
    """One row of the table."""

    name: str
    sequence_length: int
    windows: tuple[int, ...]
    steps: int
    tokens: int
    """Characters trained on in this phase."""
    seconds: float
    """Of training, without evaluation."""
    tokens_per_second: float
    peak_memory_bytes: int
    """Of the rank that needed most; on a CPU that of the whole process."""
    validation_bits_per_character: float


@dataclass(frozen=True)
class TestScore:
    """The trained model on the whole test split, with xz for orientation."""

    bits_per_character: float
    scored: int
    """Characters judged."""
    scored_without_full_context: int
    """Of them, those at the beginning, before which there was less text than a whole sequence."""
    sequence_length: int
    stride: int
    xz_bits_per_character: float
    """What `xz -9e` needs for the same text."""


@dataclass(frozen=True)
class Summary:
    """All numbers of the report."""

    name: str
    parameters: int
    ranks: int
    phases: tuple[PhaseSummary, ...]
    saving_seconds: float
    """What checkpoints between steps took from training, all phases."""
    test: TestScore
