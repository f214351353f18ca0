"""`longformer data`: prepare text once, look at what was prepared, and check that it is still whole."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from data_pipeline.errors import DataError
from data_pipeline.prepared import PreparedData
from data_pipeline.recipes import RECIPES, prepare

app = typer.Typer(no_args_is_help=True)

PreparedDirectory = Annotated[Path, typer.Argument(help="A directory made by longformer data prepare.")]


@app.command("prepare")
def prepare_command(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(RECIPES)}.")],
    output: Annotated[Path, typer.Option(help="The directory to make.")],
    source: Annotated[
        Path | None, typer.Option(help="File or folder to read, plain or .xz, .gz, .zip; none for python_library.")
    ] = None,
    limit_bytes: Annotated[int | None, typer.Option(help="Prepare only the first so many bytes of the text.")] = None,
) -> None:
    """Turn a corpus into checked shards that training reads; does nothing where they are already there."""
    was_there = (output / "manifest.json").exists()
    try:
        with _progress_bar() as bar:
            task = bar.add_task(f"preparing {recipe}", total=None)
            prepared = prepare(
                recipe,
                source=source,
                output=output,
                limit_bytes=limit_bytes,
                report_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt:
        print("stopped: nothing was kept", file=sys.stderr)
        raise
    if was_there:
        print(f"{output} is up to date: the source has not changed, nothing to do")
    _show(prepared)


@app.command("inspect")
def inspect_command(
    directory: PreparedDirectory,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what a prepared directory holds."""
    prepared = PreparedData.open(directory)
    if as_json:
        print(json.dumps({"fingerprint": prepared.fingerprint, **asdict(prepared.manifest)}, indent=1))
    else:
        _show(prepared)


@app.command("verify")
def verify_command(directory: PreparedDirectory) -> None:
    """Read every sample against its checksum and name the damaged ones."""
    prepared = PreparedData.open(directory)
    damages = prepared.find_damage()
    if len(damages) == 1:
        raise DataError(damages[0])
    if damages:
        print("\n".join(damages))
        raise DataError(f"{directory} is damaged in {len(damages)} places: restore the files or prepare the data again")
    samples = sum(split.samples for split in prepared.manifest.splits.values())
    print(f"{directory} is whole: {samples:,} samples agree with their checksums")


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _show(prepared: PreparedData) -> None:
    manifest = prepared.manifest
    facts = Table.grid(padding=(0, 2))
    facts.add_row("recipe", str(manifest.recipe))
    facts.add_row("source", f"{manifest.source.path or 'the running Python'}")
    facts.add_row("documents", f"{manifest.source.documents:,} in {manifest.source.files:,} files")
    facts.add_row("vocabulary", f"{len(manifest.vocabulary)} characters (bytes)")
    facts.add_row("split", manifest.split_rule)
    facts.add_row("fingerprint", manifest.fingerprint)
    splits = Table("split", "tokens", "samples", "shards")
    for name, split in manifest.splits.items():
        splits.add_row(name, f"{split.tokens:,}", f"{split.samples:,}", f"{len(split.shards):,}")
    console = Console()
    console.print(facts, splits, sep="\n", highlight=False, markup=False)
