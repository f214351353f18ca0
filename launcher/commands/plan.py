"""`longformer plan`: what a run will take, before it starts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from longformer.cost import measured_peak_flops
from rich.console import Console
from rich.table import Table

from launcher.checks import check_surroundings, prepared_data
from launcher.plan import RunPlan, plan_run
from launcher.progress import clock
from launcher.run_file import RunConfig

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def plan(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as phases.0.steps=100.")
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show steps, tokens, memory per rank, FLOPs and time of every phase before the run starts."""
    config = RunConfig.load(run_file, overrides or [])
    config.check_ranks(ranks)
    notes = check_surroundings(config)
    on_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    peak = measured_peak_flops(device, _DTYPES[config.training.precision])
    # Ranks on a CPU share it; on CUDA each has a device of its own.
    result = plan_run(config, ranks=ranks, peak_flops=peak * (ranks if on_cuda else 1), data=prepared_data(config))
    if as_json:
        print(json.dumps(asdict(result) | {"notes": notes}, indent=2))
        return
    _show(result)
    for note in notes:
        print(f"note: {note}")


def _show(result: RunPlan) -> None:
    headings = (
        "phase",
        "length",
        "steps",
        "tokens",
        "epochs",
        "batch per rank",
        "memory per rank",
        "FLOPs",
        "at least",
    )
    table = Table(title=f"{result.name}: {result.parameters:,} parameters, {result.ranks} ranks", title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right")
    for phase in result.phases:
        table.add_row(
            phase.name,
            f"{phase.sequence_length:,}",
            f"{phase.steps:,}",
            f"{phase.tokens:,}",
            "?" if phase.epochs is None else f"{phase.epochs:.2f}",
            f"{phase.micro_batch_size} x {phase.accumulation_steps}",
            f"{phase.memory.total / 2**30:.2f} GiB",
            f"{phase.flops:.2e}",
            clock(phase.seconds_at_peak),
        )
    console = Console()
    console.print(table)
    console.print(
        f"At least {clock(result.seconds_at_peak)} in all, were the devices always at their measured peak of "
        f"{result.peak_flops:.2e} FLOP/s together.",
        highlight=False,
    )
    if result.shards is not None:
        console.print(
            f"Training text: {result.shards} shards, {result.shards_per_rank:.2f} per rank; every rank reads single "
            "samples from any of them, so the shards need not divide.",
            highlight=False,
        )
