"""What a check of the doctor finds."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How good it is, worst last."""

    OK = "OK"
    WARN = "WARN"
    """Training works, but something will be slow, unsafe or not to be had."""
    MISS = "MISS"
    """Training cannot work."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer.

    What is found never names the machine, so that equal machines have equal findings.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""
    """One sentence; empty where nothing is amiss."""


def worst(findings: Iterable[Finding]) -> Level:
    """Returns the worst level of all findings, OK where there are none."""
    return max((finding.level for finding in findings), key=list(Level).index, default=Level.OK)
