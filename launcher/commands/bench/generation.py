"""`longformer bench generate`: writing with an LED, ours beside Hugging Face's."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from launcher.commands.output_file import Measurements
from launcher.reporting.terminal import terminal, terminal_table
from longformer.benchmarks.generation import OURS, WritingMeasurement, compare_writing
from longformer.benchmarks.machine import machine
from longformer.files import write_json


def generate(
    positions: Annotated[int, typer.Option("--length", min=2, help="Tokens of the document.")] = 4096,
    beams: Annotated[int, typer.Option(min=1, help="Texts followed at the same time.")] = 4,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens written.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
    json_file: Measurements = None,
) -> None:
    """Compare LED-base with Hugging Face's: same weights, document and settings, and the same tokens as a result.

    float32 on the CPU with the threads PyTorch uses (OMP_NUM_THREADS), one after the other in one process.
    """
    with Console(stderr=True).status("measuring") as status:
        measurements = compare_writing(
            positions=positions, beams=beams, new_tokens=new_tokens, repeats=repeats, report=status.update
        )
    if json_file is not None:
        results = [asdict(measurement) for measurement in measurements]
        write_json(json_file, {"machine": machine("cpu"), "measurements": results})
    terminal().print(
        as_table(measurements, f"LED-base, {positions:,} tokens read, {new_tokens} written, {beams} beams")
    )


def as_table(measurements: list[WritingMeasurement], title: str) -> Table:
    """Returns the measurements as a table, every part beside ours."""
    parts = ("seconds", "reading_seconds", "writing_seconds")
    headings = [""]
    for part in parts:
        headings += [part.replace("_seconds", " s").replace("seconds", "in all s"), "/ ours"]
    ours = next(each for each in measurements if each.contender == OURS)
    rows = []
    for each in measurements:
        cells = [each.contender]
        for part in parts:
            value = getattr(each, part)
            cells += [f"{value:.2f}", f"{value / getattr(ours, part):.1f}x"]
        rows.append(cells)
    return terminal_table(headings, rows, title=title)
