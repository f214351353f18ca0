"""`longformer bench data` and `bench prepare`: how fast documents are read and prepared."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from data_pipeline.loading.benchmark import measure_loader, measure_preparation
from data_pipeline.shards.prepared import PreparedData
from launcher.commands.output_file import Measurements
from launcher.reporting.terminal import terminal, terminal_table
from launcher.tasks.data import open_tokenizer
from longformer.benchmarks.machine import machine
from longformer.files import write_json


def data(
    location: Annotated[Path, typer.Argument(help="A directory made by longformer data prepare documents.")],
    sequence_length: Annotated[int, typer.Option(min=3)] = 4096,
    micro_batch: Annotated[int, typer.Option(min=1, help="Sequences per batch.")] = 4,
    open_shards: Annotated[int, typer.Option(min=1, help="Shards that are shuffled together.")] = 16,
    workers: Annotated[list[int] | None, typer.Option(min=0, help="Loader workers; repeat for more.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to draw batches, for each row.")] = 5.0,
    json_file: Measurements = None,
) -> None:
    """How many tokens per second the loader alone gives: packed, masked batches, from a cold and a warm page cache."""
    prepared = PreparedData.open(location)
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
    rows = [
        (
            str(speed.workers),
            "cold" if speed.cold else "warm",
            f"{speed.first_batch_seconds:.2f} s",
            f"{speed.tokens_per_second:,.0f}",
        )
        for speed in speeds
    ]
    terminal().print(terminal_table(("workers", "page cache", "first batch", "tokens / s"), rows, names=2))
    if json_file is not None:
        write_json(
            json_file,
            {
                "machine": machine("cpu"),
                "sequence_length": sequence_length,
                "micro_batch": micro_batch,
                "measurements": [asdict(speed) for speed in speeds],
            },
        )


def prepare(
    source: Annotated[Path, typer.Option(help="File or folder of text, JSON lines or Parquet.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json, or a folder with vocab.json and merges.txt.")],
    field: Annotated[str, typer.Option(help="Where JSON lines and Parquet keep the text.")] = "text",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
) -> None:
    """How fast one core prepares documents, beside the tokenizer library alone on the same texts."""
    speed = measure_preparation(source, open_tokenizer(tokenizer), field=field, repeats=repeats)
    megabytes = speed.text_bytes / 1e6
    print(
        f"{megabytes:.1f} MB of text: library alone {megabytes / speed.tokenizer_seconds:.2f} MB/s, "
        f"whole preparation {megabytes / speed.preparation_seconds:.2f} MB/s, that is {speed.share_of_library:.0%}"
    )
