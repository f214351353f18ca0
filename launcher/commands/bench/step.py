"""`longformer bench step`: a training step of our models beside Hugging Face's."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from launcher.commands.bench.busy import Busy, write_and_print
from launcher.commands.output_file import Measurements
from launcher.reporting.terminal import terminal, terminal_table
from longformer.benchmarks.machine import machine
from longformer.benchmarks.step import StepMeasurement, compare_busy_steps, compare_steps
from longformer.benchmarks.step_models import OURS
from longformer.files import write_json


class Model(StrEnum):
    """What is trained."""

    LONGFORMER_BASE = "longformer-base"
    LED_BASE_ENCODER = "led-base-encoder"


def step(
    model: Annotated[Model, typer.Option(help="Longformer-base with its masked-LM head, or LED-base's encoder.")],
    lengths: Annotated[list[int], typer.Option("--length", min=16, help="Tokens of the text; repeat for more.")],
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each; the fastest step of all counts.")] = 3,
    busy: Busy = 0,
    json_file: Measurements = None,
) -> None:
    """Compare a training step, forward and backward, with Hugging Face's: published shapes, random weights, batch 1.

    float32 on the CPU with the threads PyTorch uses (OMP_NUM_THREADS), dropout as published, by turns: a process of
    its own takes at least two steps, and as many as fit into five seconds. A text short enough for RoBERTa is given to
    a RoBERTa of the same size too.
    """
    with Console(stderr=True).status("measuring") as status:
        if busy:
            measured = [
                each
                for positions in lengths
                for each in compare_busy_steps(model.value, positions, busy=busy, repeats=repeats, report=status.update)
            ]
            write_and_print(f"training step of {model.value} beside {busy} busy processes", measured, json_file)
            return
        measurements = compare_steps(model.value, lengths, repeats=repeats, report=status.update)
    if json_file is not None:
        results = [asdict(measurement) for measurement in measurements]
        write_json(json_file, {"machine": machine("cpu"), "measurements": results})
    terminal().print(as_table(model.value, measurements))
    for measurement in measurements:
        if measurement.failure is not None:
            Console().print(measurement.failure, style="dim", highlight=False)


def as_table(model: str, measurements: list[StepMeasurement]) -> Table:
    """Returns the measurements, ours beside every contender at the same length."""
    headings = ("tokens", "contender", "seconds", "tokens/s", "ours is", "peak MiB", "ours needs")
    ours = {each.positions: each for each in measurements if each.contender == OURS}
    rows = []
    for each in measurements:
        base = ours[each.positions]
        if each.seconds is None or each.peak_bytes is None:
            rows.append((f"{each.positions:,}", each.contender, *["-"] * 5))
            continue
        compared = ("-", "-")
        if base.seconds is not None and base.peak_bytes is not None:
            compared = (f"{each.seconds / base.seconds:.2f}x as fast", f"{base.peak_bytes / each.peak_bytes:.2f} of it")
        rows.append(
            (
                f"{each.positions:,}",
                each.contender,
                f"{each.seconds:.2f}",
                f"{each.tokens_per_second:,.0f}",
                compared[0],
                f"{each.peak_bytes / 2**20:,.0f}",
                compared[1],
            )
        )
    return terminal_table(headings, rows, title=f"training step of {model}", names=2)
