"""`longformer plan --gpu`: what a run will take on a cluster, in tables with the assumptions under them."""

import json
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.cluster_plan import RECOMPUTATION, USABLE, ZERO_STAGES, Forecast, PhaseForecast, fits, forecast
from launcher.gpus import Gpu
from launcher.run_file import RunConfig
from launcher.tasks.kinds import task_of
from launcher.wording import clock, short

ASSUMED_MFU = 0.3
"""Not measured: what long-sequence training commonly reaches of the peak speed."""


def show_forecast(
    config: RunConfig, gpu: Gpu, notes: list[str], *, gpus: int, nodes: int, mfu: float, as_json: bool
) -> None:
    """Print the plan of a run on `nodes` nodes of `gpus` GPUs, with notes on the world around the run file."""
    result = forecast(config, gpu, gpus=gpus * nodes, mfu=mfu)
    text = task_of(config).training_text()
    shards = None if text is None else text.shards
    if as_json:
        totals = {"seconds": result.seconds, "shards": shards, "nodes": nodes, "notes": notes}
        print(json.dumps(asdict(result) | totals, indent=1))
        return
    console = Console()
    console.print(_memory_table(config, result))
    console.print(_time_table(result))
    console.print(_assumptions(config, result, nodes), style="dim", highlight=False)
    if shards is not None:
        console.print(
            f"Training text: {shards} shards, {shards / result.gpus:.2f} per rank; every rank reads single samples "
            "from any of them, so the shards need not divide.",
            highlight=False,
        )
    for warning in result.warnings:
        console.print(Text("warning: ", style="bold yellow").append(warning, style="default"), soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _memory_table(config: RunConfig, result: Forecast) -> Table:
    chosen = config.training.zero_stage
    title = f"{config.name} on {result.gpus} x {result.gpu.name}: GB of each GPU, by ZeRO stage"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    table.add_column("phase")
    for stage in ZERO_STAGES:
        table.add_column(f"{stage}, chosen" if stage == chosen else str(stage), justify="right")
    for heading in ("weights", "gradients", "optimizer", "activations"):
        table.add_column(heading, justify="right", style="dim")
    for phase in result.phases:
        own = phase.memory[chosen]
        parts = (own.parameters, own.gradients, own.optimizer, own.activations)
        table.add_row(phase.name, *_totals(phase, result.gpu), *(f"{part / 1e9:.2f}" for part in parts))
    return table


def _totals(phase: PhaseForecast, gpu: Gpu) -> list[Text]:
    """Return the total for each stage, marked where it does not fit."""
    return [
        Text(f"{memory.total / 1e9:.2f}" if fits(memory, gpu) else f"{memory.total / 1e9:.2f} !", style=style)
        for memory in phase.memory
        for style in ["" if fits(memory, gpu) else "bold red"]
    ]


def _time_table(result: Forecast) -> Table:
    table = Table(box=box.SIMPLE, collapse_padding=True)
    table.add_column("phase")
    for heading in ("seconds a step", "time", "between checkpoints", "checkpoints a day"):
        table.add_column(heading, justify="right")
    for phase in result.phases:
        table.add_row(
            phase.name,
            f"{phase.step_seconds:.3g}",
            clock(phase.seconds),
            clock(phase.checkpoint_seconds),
            f"{short(result.bytes_a_day(phase))}B",
        )
    table.add_row("all", "", clock(result.seconds), "", "")
    return table


def _assumptions(config: RunConfig, result: Forecast, nodes: int) -> str:
    peak = result.gpu.peak_flops[config.training.precision]
    again = (
        f" and {RECOMPUTATION:.2f} times the work for activation checkpointing"
        if config.training.activation_checkpointing
        else ""
    )
    return (
        f"Assumed: {short(peak)} FLOP/s of each GPU in {config.training.precision} (data sheet), of which training "
        f"reaches {result.mfu:.0%} (--mfu; not measured){again}; {result.gpus // nodes} GPUs on each of {nodes} nodes; "
        f"{USABLE:.0%} of {short(result.gpu.memory)}B can be filled (! marks what does not fit); no evaluation. "
        f"A checkpoint is {short(result.checkpoint_bytes)}B, and up to {short(result.kept_bytes)}B lie on the disk. "
        "The parts of the memory are those of the chosen stage."
    )
