"""`longformer plan`: what a run will take, before it starts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table
from rich.text import Text

from data_pipeline.errors import DataError
from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.planning.fit import USABLE, fits, this_machine
from launcher.planning.gpu_plan import RECOMPUTATION, ZERO_STAGES, Forecast, PhaseForecast, forecast
from launcher.planning.gpus import GPUS, Gpu, gpu_of
from launcher.planning.plan import RunPlan, plan_run
from launcher.reporting.terminal import terminal, terminal_table
from launcher.reporting.text import clock, short
from launcher.tasks.registry import data_of
from launcher.training.trial import Trial
from longformer.costs.peak import measured_peak_flops
from longformer.errors import LongformerError

ASSUMED_MFU = 0.3
"""Not measured: what long-sequence training commonly reaches of the peak speed."""
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
    measure: Annotated[
        bool, typer.Option("--measure", help="Also take a few real steps of every phase on this machine.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show steps, tokens, memory per rank, FLOPs and time of every phase before the run starts."""
    config = load(run_file, overrides or [])
    notes = _notes(config)
    config = data_of(config).in_steps()
    if gpu is not None:
        if measure:
            raise LongformerError("--measure takes steps on this machine, --gpu plans for another; give one of the two")
        kind = gpu_of(gpu, config.training.precision)
        show_forecast(config, kind, notes, gpus=gpus, nodes=nodes, mfu=mfu, as_json=as_json)
        return
    config.check_ranks(ranks)
    on_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    peak = measured_peak_flops(device, _DTYPES[config.training.precision])
    # Ranks on a CPU share it; on CUDA each has a device of its own.
    result = plan_run(
        config, this_machine(ranks), ranks=ranks, on_gpu=on_cuda, peak_flops=peak * (ranks if on_cuda else 1)
    )
    trials = None
    if measure:
        from launcher.planning.measure import try_phases  # what trains takes seconds to import

        trials = try_phases(config, ranks=ranks, warn=_warn)
    if as_json:
        measured = {} if trials is None else {"measured": [asdict(trial) for trial in trials]}
        print(json.dumps(asdict(result) | {"notes": notes} | measured, indent=2))
        return
    _show(result)
    if trials is not None:
        _show_trials(result, trials)
    for note in notes:
        print(f"note: {note}")


def _notes(config: RunConfig) -> list[str]:
    """Returns what is unusual, and what is still missing: a plan is often made where the data is not."""
    try:
        return data_of(config).check()
    except (LongformerError, DataError) as error:
        return [f"before it can start: {problem}" for problem in str(error).splitlines()]


def _show(result: RunPlan) -> None:
    headings = ("phase", "length", "steps", "tokens", "epochs", "batch", "GiB", "FLOPs", "time")
    title = f"{result.name}: {result.parameters:,} parameters, {result.ranks} ranks"
    rows = [
        (
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
        for phase in result.phases
    ]
    console = terminal()
    console.print(terminal_table(headings, rows, title=title))
    console.print(
        "batch: sequences per rank and forward pass x passes per step; GiB: memory per rank for weights, gradients, "
        "optimizer and activations; tokens: read and written, padding not counted; time: at the devices' measured "
        "peak, so no run is faster",
        style="dim",
        highlight=False,
    )
    console.print(
        f"At least {clock(result.seconds_at_peak)} in all{_if_full(result.shards)}; together the devices reach "
        f"{short(result.peak_flops)} FLOP/s.",
        highlight=False,
    )
    if result.shards is not None:
        console.print(
            f"Training text: {result.shards} shards, {result.shards_per_rank:.2f} per rank; every rank reads single "
            "samples from any of them, so the shards need not divide.",
            highlight=False,
        )


def _show_trials(result: RunPlan, trials: list[Trial]) -> None:
    rows = [
        (
            phase.name,
            f"{trial.micro_batch_size} x {trial.accumulation_steps}",
            f"{trial.seconds_per_step:.3g}",
            short(trial.tokens_per_second),
            clock(trial.seconds_per_step * phase.steps),
            f"{trial.memory / 2**30:.2f}",
        )
        for phase, trial in zip(result.phases, trials, strict=True)
    ]
    headings = ("phase", "batch", "seconds a step", "tokens a second", "time", "GiB")
    console = terminal()
    console.print(terminal_table(headings, rows, title="measured here, in a few steps of each phase"))
    seconds = sum(trial.seconds_per_step * phase.steps for phase, trial in zip(result.phases, trials, strict=True))
    console.print(f"At this speed {clock(seconds)} in all, evaluation and checkpoints not counted.", highlight=False)


def _warn(message: str) -> None:
    typer.echo(f"warning: {message}", err=True)


def _if_full(shards: int | None) -> str:
    """Returns what tokens and time suppose while nobody knows how long the texts are."""
    return ", were every sequence full (the data is not prepared yet)" if shards is None else ""


def show_forecast(
    config: RunConfig, gpu: Gpu, notes: list[str], *, gpus: int, nodes: int, mfu: float, as_json: bool
) -> None:
    """Prints the plan of a run on `nodes` nodes of `gpus` GPUs, with notes on the world around the run file."""
    result = forecast(config, gpu, gpus=gpus * nodes, mfu=mfu)
    shards = data_of(config).training_shards()
    if as_json:
        totals = {"seconds": result.seconds, "shards": shards, "nodes": nodes, "notes": notes}
        print(json.dumps(asdict(result) | totals, indent=1))
        return
    console = terminal()
    console.print(_memory_table(config, result))
    console.print(_time_table(result))
    console.print(_assumptions(config, result, nodes, shards), style="dim", highlight=False)
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
    stages = [f"{stage}, chosen" if stage == chosen else str(stage) for stage in ZERO_STAGES]
    parts = ("weights", "gradients", "optimizer", "activations")
    rows: list[list[str | Text]] = []
    for phase in result.phases:
        own = phase.memory[chosen]
        numbers = (own.parameters, own.gradients, own.optimizer, own.activations)
        rows.append([phase.name, *_totals(phase, result.gpu), *(f"{number / 1e9:.2f}" for number in numbers)])
    return terminal_table(("phase", *stages, *parts), rows, title=title, dim=parts)


def _totals(phase: PhaseForecast, gpu: Gpu) -> list[Text]:
    """Returns the total for each stage, marked where it does not fit."""
    return [
        Text(f"{memory.total / 1e9:.2f}" if fits(memory, gpu) else f"{memory.total / 1e9:.2f} !", style=style)
        for memory in phase.memory
        for style in ["" if fits(memory, gpu) else "bold red"]
    ]


def _time_table(result: Forecast) -> Table:
    rows = [
        (
            phase.name,
            f"{phase.micro_batch_size} x {phase.accumulation_steps}{' *' if phase.activation_checkpointing else ''}",
            f"{phase.step_seconds:.3g}",
            clock(phase.seconds),
            clock(phase.checkpoint_seconds),
            f"{phase.checkpoints:,}",
            f"{short(phase.checkpoints * result.checkpoint_bytes)}B",
        )
        for phase in result.phases
    ]
    written = sum(phase.checkpoints for phase in result.phases)
    rows.append(
        ("all", "", "", clock(result.seconds), "", f"{written:,}", f"{short(written * result.checkpoint_bytes)}B")
    )
    headings = ("phase", "batch", "seconds a step", "time", "between checkpoints", "checkpoints", "written")
    return terminal_table(headings, rows)


def _assumptions(config: RunConfig, result: Forecast, nodes: int, shards: int | None) -> str:
    peak = result.gpu.peak_flops[config.training.precision]
    again = (
        f" and {RECOMPUTATION:.2f} times the work for activation checkpointing (*)"
        if any(phase.activation_checkpointing for phase in result.phases)
        else ""
    )
    offloaded = max(phase.memory[config.training.zero_stage].offloaded for phase in result.phases)
    beside = f" Beside it each rank needs {short(offloaded)}B of main memory for the optimizer." if offloaded else ""
    return (
        f"Assumed: {short(peak)} FLOP/s of each GPU in {config.training.precision} (data sheet), of which training "
        f"reaches {result.mfu:.0%} (--mfu; not measured){again}{_if_full(shards)}; {result.gpus // nodes} GPUs on "
        f"each of {nodes} nodes; {USABLE:.0%} of {short(result.gpu.memory)}B can be filled (! marks what does not "
        f"fit); no evaluation. Batch: sequences per rank and forward pass x passes per step. A checkpoint "
        f"is {short(result.checkpoint_bytes)}B, and up to {short(result.kept_bytes)}B lie on the disk. The parts "
        f"of the memory are those of the chosen stage.{beside}"
    )
