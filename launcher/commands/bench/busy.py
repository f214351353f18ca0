"""The option `--busy` of `longformer bench attention` and `longformer bench step`: what other processes cost."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from launcher.reporting.terminal import terminal, terminal_table
from longformer.benchmarks.busy import BusyMeasurement
from longformer.benchmarks.machine import machine
from longformer.files import write_json

Busy = Annotated[
    int,
    typer.Option(min=0, help="Measure time alone and beside so many busy processes instead, on the CPU."),
]


def write_and_print(title: str, measurements: list[BusyMeasurement], json_file: Path | None) -> None:
    """Writes the measurements to the file, if any, and prints them."""
    if json_file is not None:
        results = [asdict(measurement) | {"ratio": measurement.ratio} for measurement in measurements]
        write_json(json_file, {"machine": machine("cpu"), "busy": results})
    terminal().print(as_table(title, measurements))


def as_table(title: str, measurements: list[BusyMeasurement]) -> Table:
    """Returns the medians of every contender with and without OMP_WAIT_POLICY."""
    headings = ("positions", "contender", "wait policy", "alone s", "beside busy s", "times")
    rows = [
        (
            f"{each.positions:,}",
            each.contender,
            each.wait_policy or "not set",
            f"{each.quiet_seconds:.2f}",
            f"{each.busy_seconds:.2f}",
            f"{each.ratio:.1f}x",
        )
        for each in measurements
    ]
    return terminal_table(headings, rows, title=title, names=3)
