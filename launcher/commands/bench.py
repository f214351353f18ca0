"""`longformer bench`: speed and memory of our parts beside their peers, as a table and as JSON."""

import platform
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from data_pipeline.benchmark import measure_loader, measure_preparation
from data_pipeline.document_data import DocumentData
from data_pipeline.tokenization import TextTokenizer
from longformer.benchmarks.attention import Measurement, compare
from longformer.benchmarks.attention_engines import OURS, Setting
from longformer.files import write_json

app = typer.Typer(no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed and memory."""


@app.command("attention")
def attention(
    lengths: Annotated[list[int] | None, typer.Option("--length", min=1, help="Positions; repeat for more.")] = None,
    heads: Annotated[int, typer.Option(min=1)] = 12,
    head_dim: Annotated[int, typer.Option(min=1)] = 64,
    window: Annotated[
        int, typer.Option(min=2, help="Keys seen: both sides together, or the look-back with --causal.")
    ] = 512,
    dilation: Annotated[int, typer.Option(min=1, help="Distance of neighbouring keys; 1 = none.")] = 1,
    global_tokens: Annotated[int, typer.Option(min=0, help="Keys that every query sees.")] = 0,
    causal: Annotated[bool, typer.Option("--causal", help="See nothing after the query.")] = False,
    backward: Annotated[bool, typer.Option("--backward/--forward", help="Measure gradients too.")] = True,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the measurements to this file.")] = None,
) -> None:
    """Compare our attention with dense SDPA, and with Hugging Face's layer where transformers is installed.

    float32, batch 1, on the CPU with the threads PyTorch uses (OMP_NUM_THREADS). All engines get the same query,
    key and value: projections are not part of what is measured.
    """
    console = Console(stderr=True)
    settings = [
        Setting(length, heads, head_dim, window, dilation, global_tokens, causal, backward)
        for length in lengths or [4096, 16384]
    ]
    with console.status("measuring") as status:
        measurements = compare(settings, repeats=repeats, report=status.update)
    Console().print(as_table(measurements))
    for growth in memory_growth(measurements):
        Console().print(
            f"our extra memory from {growth['from_positions']:,} to {growth['to_positions']:,} positions: "
            f"{growth['factor']:.2f}x"
        )
    if json_file is not None:
        write_json(
            json_file,
            {
                "machine": machine(),
                "measurements": [asdict(measurement) for measurement in measurements],
                "memory_growth": memory_growth(measurements),
            },
        )


@app.command("data")
def data(
    location: Annotated[Path, typer.Argument(help="A directory made by longformer data prepare documents.")],
    sequence_length: Annotated[int, typer.Option(min=3)] = 4096,
    micro_batch: Annotated[int, typer.Option(min=1, help="Sequences per batch.")] = 4,
    open_shards: Annotated[int, typer.Option(min=1, help="Shards that are shuffled together.")] = 16,
    workers: Annotated[list[int] | None, typer.Option(min=0, help="Loader workers; repeat for more.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to draw batches, for each row.")] = 5.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the measurements to this file.")] = None,
) -> None:
    """How many tokens per second the loader alone gives: packed, masked batches, from a cold and a warm page cache."""
    prepared = DocumentData.open(str(location))
    speeds = [
        measure_loader(
            prepared,
            sequence_length=sequence_length,
            micro_batch_size=micro_batch,
            open_shards=open_shards,
            workers=count,
            cold=cold,
            seconds=seconds,
        )
        for count in workers or [0, 1, 2]
        for cold in (True, False)
    ]
    table = Table("workers", "page cache", "first batch", "tokens / s", box=box.SIMPLE_HEAD)
    for speed in speeds:
        page_cache = "cold" if speed.cold else "warm"
        table.add_row(
            str(speed.workers), page_cache, f"{speed.first_batch_seconds:.2f} s", f"{speed.tokens_per_second:,.0f}"
        )
    Console().print(table)
    if json_file is not None:
        write_json(
            json_file,
            {
                "machine": machine(),
                "sequence_length": sequence_length,
                "micro_batch": micro_batch,
                "measurements": [asdict(speed) for speed in speeds],
            },
        )


@app.command("prepare")
def prepare(
    source: Annotated[Path, typer.Option(help="File or folder of text, JSON lines or Parquet.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json, or a folder with vocab.json and merges.txt.")],
    field: Annotated[str, typer.Option(help="Where JSON lines and Parquet keep the text.")] = "text",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
) -> None:
    """How fast one core prepares documents, beside the tokenizer library alone on the same texts."""
    speed = measure_preparation(source, TextTokenizer.open(tokenizer), field=field, repeats=repeats)
    megabytes = speed.text_bytes / 1e6
    print(
        f"{megabytes:.1f} MB of text: library alone {megabytes / speed.library_seconds:.2f} MB/s, "
        f"whole preparation {megabytes / speed.preparation_seconds:.2f} MB/s, that is {speed.share_of_library:.0%}"
    )


def as_table(measurements: list[Measurement]) -> Table:
    """Return the measurements as a table, every engine beside ours at the same length."""
    backward = measurements[0].setting.backward
    # Narrow enough for a terminal of 80 columns.
    table = Table(
        title=f"attention, {'forward and backward' if backward else 'forward'}",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("positions", justify="right")
    table.add_column("engine", no_wrap=True)
    for heading in ("ms", "/ ours", "useful\nGFLOP/s", "peak\nMiB", "/ ours", "saved\nMiB", "/ ours"):
        table.add_column(heading, justify="right", no_wrap=True)
    ours = {each.setting.positions: each for each in measurements if each.engine == OURS}
    for each in measurements:
        base = ours[each.setting.positions]
        table.add_row(
            f"{each.setting.positions:,}",
            each.engine,
            f"{each.seconds * 1e3:,.0f}",
            f"{each.seconds / base.seconds:.1f}x",
            f"{each.useful_tflops * 1e3:,.0f}",
            f"{each.extra_bytes / 2**20:,.0f}",
            f"{each.extra_bytes / base.extra_bytes:.1f}x",
            *(
                (f"{each.saved_bytes / 2**20:,.0f}", f"{each.saved_bytes / base.saved_bytes:.1f}x")
                if backward
                else ("-", "-")
            ),
        )
    return table


def memory_growth(measurements: list[Measurement]) -> list[dict[str, float]]:
    """Return how much the extra memory of our engine grows from each length to the next."""
    ours = [each for each in measurements if each.engine == OURS]
    return [
        {
            "from_positions": short.setting.positions,
            "to_positions": long.setting.positions,
            "factor": long.extra_bytes / short.extra_bytes,
        }
        for short, long in pairwise(ours)
    ]


def machine() -> dict[str, str | int]:
    """Return what the numbers depend on besides the code."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor_name() -> str:
    """Return the processor's model name where the system tells it, else its architecture."""
    description = Path("/proc/cpuinfo")
    if description.exists():
        for line in description.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
