"""Where two runs part: in what was asked of them, and at which step they first gave another result."""

from dataclasses import dataclass

from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run


@dataclass(frozen=True)
class Parting:
    """The first step at which the losses of two runs differ by more than a tolerance."""

    global_step: int
    phase: str
    step: int
    """Within the phase."""
    first_loss: float
    second_loss: float


@dataclass(frozen=True)
class RunDifference:
    """What differs between two runs."""

    settings: list[str]
    """One line per value: `training.zero_stage: 1 -> 3`; ranks and data included."""
    steps_compared: int
    largest_relative_difference: float
    """Of the losses of all steps that both have recorded."""
    parting: Parting | None
    """None where they agree as far as both go."""


def compare_runs(first: Run, second: Run, *, tolerance: float) -> RunDifference:
    """Compares the recorded losses of two runs, step by step.

    Args:
        first: a run.
        second: another.
        tolerance: largest relative difference of two losses that count as equal; 0 = bit for bit.

    Raises:
        LongformerError: one is not a run directory.
    """
    settings = first.config.diff(second.config)
    for name in ("ranks", "data_fingerprint"):
        before, after = (getattr(run.paths.identity(), name) for run in (first, second))
        if before != after:
            settings.append(f"{name}: {before} -> {after}")
    parting, largest, compared = None, 0.0, 0
    records = (MetricsFollower(run.paths.metrics_file).new_records() for run in (first, second))
    for before, after in zip(*records, strict=False):
        difference = abs(before["loss"] - after["loss"]) / abs(before["loss"])
        largest = max(largest, difference)
        if parting is None and (difference > tolerance or before["phase"] != after["phase"]):
            parting = Parting(before["global_step"], before["phase"], before["step"], before["loss"], after["loss"])
        compared += 1
    return RunDifference(settings, compared, largest, parting)
