"""`longformer bench attention`: the attention part alone, beside every peer that is present."""

from enum import StrEnum
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.commands.bench.busy import Busy, write_and_print
from launcher.commands.output_file import Measurements, writable_picture
from launcher.reporting.terminal import terminal
from longformer.benchmarks.attention import Absence, Comparison, Measurement, compare, compare_busy_attention
from longformer.benchmarks.attention_engines import BLOCKED, FUSED
from longformer.benchmarks.machine import machine
from longformer.benchmarks.plot import pattern, plot
from longformer.benchmarks.setting import Setting
from longformer.files import write_json


class Device(StrEnum):
    """Where to measure."""

    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """In which dtype."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def attention(
    lengths: Annotated[list[int] | None, typer.Option("--length", min=1, help="Positions; repeat for more.")] = None,
    windows: Annotated[
        list[int] | None,
        typer.Option("--window", min=2, help="Keys seen: both sides together, or the look-back; repeat for more."),
    ] = None,
    dilations: Annotated[
        list[int] | None, typer.Option("--dilation", min=1, help="Distance of neighbouring keys; repeat for more.")
    ] = None,
    global_tokens: Annotated[
        list[int] | None, typer.Option(min=0, help="Keys that every query sees; repeat for more.")
    ] = None,
    causal: Annotated[bool, typer.Option("--causal", help="See nothing after the query.")] = False,
    backward: Annotated[bool, typer.Option("--backward/--forward", help="Measure gradients too.")] = True,
    batch: Annotated[int, typer.Option(min=1)] = 1,
    heads: Annotated[int, typer.Option(min=1)] = 12,
    head_dim: Annotated[int, typer.Option(min=1)] = 64,
    device: Annotated[Device | None, typer.Option(help="The GPU where there is one, unless given.")] = None,
    dtype: Annotated[Precision | None, typer.Option(help="float32 on a CPU, bfloat16 on a GPU, unless given.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 5,
    busy: Busy = 0,
    json_file: Measurements = None,
    plot_file: Annotated[
        Path | None,
        typer.Option("--plot", callback=writable_picture, help="Draw time and memory to this image."),
    ] = None,
) -> None:
    """Compare our attention with every peer that is present: Hugging Face's layer, SDPA, FlexAttention, FlashAttention.

    All engines get the same query, key and value: projections are not part of what is measured. On a CPU PyTorch's
    threads are used (OMP_NUM_THREADS).
    """
    if busy:
        device = device or Device.CPU
        if device is not Device.CPU or plot_file is not None:
            raise typer.BadParameter("--busy measures the CPU and draws nothing; leave out --device and --plot")
    device = device or (Device.CUDA if torch.cuda.is_available() else Device.CPU)
    if device is Device.CUDA and not torch.cuda.is_available():
        raise typer.BadParameter("--device cuda needs a GPU, and PyTorch finds none")
    dtype = dtype or (Precision.FLOAT32 if device is Device.CPU else Precision.BFLOAT16)
    settings = [
        Setting(
            positions=positions,
            batch=batch,
            heads=heads,
            head_dim=head_dim,
            window=window,
            dilation=dilation,
            global_tokens=globals_,
            causal=causal,
            backward=backward,
            device=device.value,
            dtype=dtype.value,
        )
        for window, dilation, globals_, positions in product(
            windows or [512], dilations or [1], global_tokens or [0], lengths or [4096, 16384]
        )
    ]
    with Console(stderr=True).status("measuring") as status:
        if busy:
            measured = [
                each
                for setting in settings
                for each in compare_busy_attention(setting, busy=busy, repeats=repeats, report=status.update)
            ]
            write_and_print(f"attention beside {busy} busy processes", measured, json_file)
            return
        comparison = compare(settings, repeats=repeats, report=status.update)
    growth = memory_growth(comparison.measurements)
    # Written before anything is printed: whoever reads the tables may stop reading.
    if json_file is not None:
        write_json(json_file, {"machine": machine(device.value), **comparison.as_json(), "memory_growth": growth})
    print_results(comparison)
    for step in growth:
        Console().print(
            f"memory of {step['engine']} from {step['from_positions']:,} to {step['to_positions']:,} positions: "
            f"{step['factor']:.2f}x"
        )
    if plot_file is not None:
        plot(comparison.measurements, plot_file)


def print_results(comparison: Comparison) -> None:
    """Prints a table for each pattern, and below it who is missing and why."""
    for name in dict.fromkeys(pattern(each.setting) for each in comparison.measurements):
        terminal().print(as_table(name, [each for each in comparison.measurements if pattern(each.setting) == name]))
        for line in missing([each for each in comparison.absences if pattern(each.setting) == name]):
            Console().print(line, style="dim", highlight=False)


def as_table(title: str, measurements: list[Measurement]) -> Table:
    """Returns the measurements of one pattern, every engine beside ours at the same length."""
    # Narrow enough for a terminal of 80 columns.
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    table.add_column("positions", justify="right", no_wrap=True, min_width=7)
    table.add_column("engine", no_wrap=True)
    headings = ("forward\nms", "backward\nms", "/ ours", "useful\nTFLOP/s", "of\npeak", "adds\nMiB", "saves\nMiB")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for each in measurements:
        # Ours come first at every length, the fused engine before the portable one.
        base = next(other for other in measurements if other.setting == each.setting)
        forward_flops, backward_flops = each.setting.useful_flops
        table.add_row(
            f"{each.setting.positions:,}",
            each.engine,
            f"{each.forward_seconds * 1e3:,.4g}",
            f"{each.backward_seconds * 1e3:,.4g}",
            f"{each.seconds / base.seconds:.2f}x",
            f"{(forward_flops + backward_flops) / each.seconds / 1e12:.2g}",
            f"{each.share_of_peak:.0%}",
            f"{each.extra_bytes / 2**20:,.0f}",
            f"{each.saved_bytes / 2**20:,.0f}",
        )
    return table


def missing(absences: list[Absence]) -> list[str]:
    """Returns a line for every engine and reason, with the lengths where they hold."""
    lengths: dict[tuple[str, str], list[str]] = {}
    for each in absences:
        lengths.setdefault((each.engine, each.reason), []).append(f"{each.setting.positions:,}")
    return [f"not measured: {engine} at {', '.join(at)}: {reason}" for (engine, reason), at in lengths.items()]


def memory_growth(measurements: list[Measurement]) -> list[dict[str, str | float]]:
    """Returns how much the extra memory of our engines grows from each length to the next of the same pattern."""
    return [
        {
            "engine": short.engine,
            "pattern": pattern(short.setting),
            "from_positions": short.setting.positions,
            "to_positions": long.setting.positions,
            "factor": long.extra_bytes / short.extra_bytes,
        }
        for engine in (FUSED, BLOCKED)
        for short, long in pairwise(each for each in measurements if each.engine == engine)
        if pattern(short.setting) == pattern(long.setting)
    ]
