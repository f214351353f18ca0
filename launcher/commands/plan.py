"""`longformer plan`: what a run will take, before it starts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from data_pipeline.errors import DataError
from launcher.commands.plan_gpus import ASSUMED_MFU, show_forecast
from launcher.gpus import GPUS, gpu_of
from launcher.plan import RunPlan, plan_run
from launcher.run_file import RunConfig
from launcher.tasks.kinds import task_of
from launcher.wording import clock, short
from longformer.cost import measured_peak_flops
from longformer.errors import LongformerError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def plan(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as phases.0.steps=100.")
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    gpu: Annotated[str | None, typer.Option(help=f"Plan for GPUs of a kind instead: {', '.join(GPUS)}.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of each node, a rank on each.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes with so many GPUs.")] = 1,
    mfu: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the GPUs' peak speed that training is assumed to reach.")
    ] = ASSUMED_MFU,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show steps, tokens, memory per rank, FLOPs and time of every phase before the run starts."""
    config = RunConfig.load(run_file, overrides or [])
    notes = _notes(config)
    if gpu is not None:
        kind = gpu_of(gpu, config.training.precision)
        show_forecast(config, kind, notes, gpus=gpus, nodes=nodes, mfu=mfu, as_json=as_json)
        return
    config.check_ranks(ranks)
    on_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    peak = measured_peak_flops(device, _DTYPES[config.training.precision])
    # Ranks on a CPU share it; on CUDA each has a device of its own.
    result = plan_run(config, ranks=ranks, on_gpu=on_cuda, peak_flops=peak * (ranks if on_cuda else 1))
    if as_json:
        document = asdict(result) | {"notes": notes}
        for phase in document["phases"]:
            phase["memory"]["total"] = sum(phase["memory"].values())
        print(json.dumps(document, indent=2))
        return
    _show(result)
    for note in notes:
        print(f"note: {note}")


def _notes(config: RunConfig) -> list[str]:
    """Return what is unusual, and what is still missing: a plan is often made where the data is not."""
    try:
        return task_of(config).check()
    except (LongformerError, DataError) as error:
        return [f"before it can start: {problem}" for problem in str(error).splitlines()]


def _show(result: RunPlan) -> None:
    headings = (
        "phase",
        "length",
        "steps",
        "tokens",
        "epochs",
        "batch",
        "GiB",
        "FLOPs",
        "time",
    )
    title = f"{result.name}: {result.parameters:,} parameters, {result.ranks} ranks"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for phase in result.phases:
        table.add_row(
            phase.name,
            f"{phase.sequence_length:,}",
            f"{phase.steps:,}",
            short(phase.tokens),
            "?" if phase.epochs is None else f"{phase.epochs:.2f}",
            f"{phase.micro_batch_size} x {phase.accumulation_steps}",
            f"{phase.memory.total / 2**30:.2f}",
            short(phase.flops),
            clock(phase.seconds_at_peak),
        )
    console = Console()
    console.print(table)
    console.print(
        "batch: sequences per rank and forward pass x passes per step; GiB: memory per rank for weights, gradients, "
        "optimizer and activations; time: at the devices' measured peak, so no run is faster",
        style="dim",
        highlight=False,
    )
    console.print(
        f"At least {clock(result.seconds_at_peak)} in all; together the devices reach "
        f"{short(result.peak_flops)} FLOP/s.",
        highlight=False,
    )
    if result.shards is not None:
        console.print(
            f"Training text: {result.shards} shards, {result.shards_per_rank:.2f} per rank; every rank reads single "
            "samples from any of them, so the shards need not divide.",
            highlight=False,
        )
