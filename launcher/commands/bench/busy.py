"""The option `--busy` of `longformer bench attention` and `longformer bench step`: what other processes cost."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

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
    Console().print(as_table(title, measurements))


def as_table(title: str, measurements: list[BusyMeasurement]) -> Table:
    """Returns the medians of every contender with and without OMP_WAIT_POLICY."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("positions", "contender", "wait policy", "alone s", "beside busy s", "times"):
        table.add_column(heading, justify="left" if heading == "contender" else "right", no_wrap=True)
    for each in measurements:
        table.add_row(
            f"{each.positions:,}",
            each.contender,
            each.wait_policy or "not set",
            f"{each.quiet_seconds:.2f}",
            f"{each.busy_seconds:.2f}",
            f"{each.ratio:.1f}x",
        )
    return table
