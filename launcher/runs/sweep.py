"""Runs that differ in a few values of the run file: which they are, and where each lies.

A sweep is a directory with one run directory per combination, named 0, 1, ... as the tasks of a Slurm array.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from launcher.runs.paths import RunPaths
from longformer.errors import LongformerError
from longformer.files import write_json


def combinations(axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns every combination of the values of `KEY=VALUE,VALUE,...` as overrides; the last key changes fastest.

    Raises:
        LongformerError: a key has no value, or is there twice.
    """
    choices: dict[str, list[str]] = {}
    for axis in axes:
        key, _, values = axis.partition("=")
        if not key or not all(values.split(",")):
            raise LongformerError(f"--sweep {axis!r} is not a key with its values, such as seed=0,1,2")
        if key in choices:
            raise LongformerError(f"--sweep {key} is there twice; write its values in one: {key}=1,2,3")
        choices[key] = [f"{key}={value}" for value in values.split(",")]
    return list(itertools.product(*choices.values()))


def run_of(sweep: RunPaths, index: int) -> RunPaths:
    """Returns where a run of a sweep lies."""
    return RunPaths(sweep.root / str(index))


def record_sweep(sweep: RunPaths, runs: Sequence[tuple[str, ...]]) -> None:
    """Writes down the overrides of every run of a sweep."""
    sweep.submission_directory.mkdir(parents=True, exist_ok=True)
    write_json(_file(sweep), runs)


def check_continues(sweep: RunPaths, runs: Sequence[tuple[str, ...]]) -> None:
    """Checks that the runs of a sweep are those that lie in its directory, or those and further ones behind them.

    Raises:
        LongformerError: another sweep or a single run lies there.
    """
    before = overrides_of(sweep)
    if sweep.exists or list(runs[: len(before)]) != before:
        there = "a run" if sweep.exists else f"a sweep of {' '.join(before[0])} and others"
        raise LongformerError(f"{sweep.root} holds {there}; choose another --run-directory or name")


def overrides_of(sweep: RunPaths) -> list[tuple[str, ...]]:
    """Returns the overrides of every run of a sweep; nothing where the directory is not a sweep's."""
    try:
        return [tuple(overrides) for overrides in json.loads(_file(sweep).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []


def runs_of(sweep: RunPaths) -> list[tuple[RunPaths, str]]:
    """Returns every run of a sweep with its overrides in words; nothing where the directory is not a sweep's."""
    return [(run_of(sweep, index), " ".join(overrides)) for index, overrides in enumerate(overrides_of(sweep))]


def _file(sweep: RunPaths) -> Path:
    return sweep.submission_directory / "sweep.json"
