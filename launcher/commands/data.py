"""`longformer data`: prepare text once, look at what was prepared, and check that it is still whole."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from data_pipeline.errors import DataError
from data_pipeline.prepare.characters import RECIPES, prepare
from data_pipeline.prepare.documents import prepare_corpus
from data_pipeline.prepare.parallel import LocalProcesses
from data_pipeline.shards.document_dataset import DocumentData, open_prepared
from data_pipeline.shards.stream_dataset import PreparedData
from data_pipeline.sources.corpus import find_corpus_files, read_corpus, text_corpus
from data_pipeline.sources.corpus_types import DOCUMENTS, SUMMARIES
from data_pipeline.sources.files import DocumentReader, ReportProgress
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.summaries import LAYOUTS, summary_corpus
from data_pipeline.tokenizers.subword import TextTokenizer, train_tokenizer
from launcher.backends.ray.task_map import RayTasks
from launcher.commands.output_file import writable

app = typer.Typer(no_args_is_help=True)

_OF_SUBWORDS = (DOCUMENTS, SUMMARIES)

PreparedDirectory = Annotated[str, typer.Argument(help="A directory or URL made by longformer data prepare.")]


@app.command("prepare")
def prepare_command(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join([*RECIPES, *_OF_SUBWORDS])}.")],
    output: Annotated[Path, typer.Option(help="The directory to make.")],
    source: Annotated[
        Path | None, typer.Option(help="File or folder to read, plain or .xz, .gz, .zip; none for python_library.")
    ] = None,
    limit_bytes: Annotated[
        int | None,
        typer.Option(help="Prepare only the first so many bytes of the text; not for documents or summaries."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="documents, summaries: tokenizer.json, or a folder with vocab.json and merges.txt."),
    ] = None,
    field: Annotated[str, typer.Option(help="documents: where JSON lines and Parquet keep the text.")] = "text",
    layout: Annotated[
        str, typer.Option(help=f"summaries: one of {', '.join(LAYOUTS)}, or names of fields.")
    ] = "document=document,summary=summary",
    workers: Annotated[
        int | None, typer.Option(min=1, help="documents, summaries: processes; all cores where not given.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="documents, summaries: on this Ray cluster: auto, local or ray://HOST:PORT."
        ),
    ] = None,
    damaged_allowed: Annotated[int, typer.Option(min=0, help="documents, summaries: so many may be unreadable.")] = 0,
) -> None:
    """Turn a corpus into checked shards that training reads; does nothing where they are already there."""
    if recipe in _OF_SUBWORDS and limit_bytes is not None:
        raise DataError(f"{recipe} take no --limit-bytes: give a smaller source")
    if recipe not in _OF_SUBWORDS and tokenizer is not None:
        raise DataError(f"recipe {recipe} takes no --tokenizer: its tokens are characters; recipe documents takes one")
    was_there = (output / "manifest.json").exists()
    try:
        with _progress_bar(f"preparing {recipe}") as report_progress:
            prepared: PreparedData | DocumentData
            if recipe in _OF_SUBWORDS:
                given = _given("source", recipe, source)
                prepared = prepare_corpus(
                    text_corpus(given, field=field) if recipe == DOCUMENTS else summary_corpus(given, layout),
                    tokenizer=TextTokenizer.open(_given("tokenizer", recipe, tokenizer)),
                    output=output,
                    damaged_allowed=damaged_allowed,
                    task_map=RayTasks(ray) if ray else LocalProcesses(workers) if workers else None,
                    report_progress=report_progress,
                )
            else:
                prepared = prepare(
                    recipe, source=source, output=output, limit_bytes=limit_bytes, report_progress=report_progress
                )
    except KeyboardInterrupt:
        kept = (
            "nothing was kept" if recipe not in _OF_SUBWORDS else "finished shards are kept; the same command goes on"
        )
        print(f"stopped: {kept}", file=sys.stderr)
        raise
    if was_there:
        print(f"{output} is up to date: the source has not changed, nothing to do")
    _show(prepared)


@app.command("train-tokenizer")
def train_tokenizer_command(
    source: Annotated[Path, typer.Option(help="File or folder of text, JSON lines or Parquet.")],
    output: Annotated[Path, typer.Option(callback=writable, help="The tokenizer.json to write.")],
    vocabulary_size: Annotated[int, typer.Option(help="Tokens, RoBERTa's five special ones included.")] = 50_265,
    field: Annotated[str, typer.Option(help="Where JSON lines and Parquet keep the text.")] = "text",
) -> None:
    """Train a byte-level BPE tokenizer on documents; the same documents give the same tokenizer."""
    if output.exists():
        raise DataError(f"{output} exists already: choose another name or delete it")
    files = find_corpus_files(source)
    with _progress_bar("reading documents") as report_progress:
        documents = read_corpus(files, DocumentReader(files, report_progress), field=field, quarantine=Quarantine(0))
        trained = train_tokenizer((document.text for document in documents), vocabulary_size=vocabulary_size)
    trained.save(output)
    print(f"{output}: {trained.vocabulary_size:,} tokens, sha256 {trained.sha256[:12]}")


@app.command("inspect")
def inspect_command(
    directory: PreparedDirectory,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what a prepared directory holds."""
    prepared = open_prepared(directory)
    if as_json:
        print(json.dumps({"fingerprint": prepared.fingerprint, **asdict(prepared.manifest)}, indent=1))
    else:
        _show(prepared)


@app.command("verify")
def verify_command(directory: PreparedDirectory) -> None:
    """Read every sample against its checksum and name the damaged ones."""
    prepared = open_prepared(directory)
    damages = prepared.find_damage()
    if len(damages) == 1:
        raise DataError(damages[0])
    if damages:
        print("\n".join(damages))
        raise DataError(f"{directory} is damaged in {len(damages)} places: restore the files or prepare the data again")
    print(f"{directory} is whole: {prepared.samples:,} samples agree with their checksums")


def _given(name: str, recipe: str, path: Path | None) -> Path:
    if path is None:
        raise DataError(f"{recipe} need a {name}: give --{name}")
    return path


@contextmanager
def _progress_bar(description: str) -> Iterator[ReportProgress]:
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(prepared: PreparedData | DocumentData) -> None:
    console = Console()
    parts = _document_tables(prepared) if isinstance(prepared, DocumentData) else _text_tables(prepared)
    console.print(*parts, sep="\n", highlight=False, markup=False)


def _text_tables(prepared: PreparedData) -> tuple[Table, Table]:
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
    return facts, splits


def _document_tables(prepared: DocumentData) -> tuple[Table, Table]:
    manifest = prepared.manifest
    source = manifest.source
    facts = Table.grid(padding=(0, 2))
    facts.add_row("source", f"{source.path}, {'field' if source.kind == DOCUMENTS else 'layout'} {source.field}")
    facts.add_row(
        "documents", f"{source.documents:,} in {source.files:,} files, {source.empty_documents:,} of them empty"
    )
    facts.add_row("damaged", f"{source.damaged_documents:,}")
    facts.add_row(
        "tokenizer", f"{manifest.tokenizer.vocabulary_size:,} tokens, sha256 {manifest.tokenizer.sha256[:12]}"
    )
    facts.add_row("split", manifest.split_rule)
    facts.add_row("fingerprint", manifest.fingerprint)
    splits = Table("split", "documents", "tokens", "shards")
    for name, shards in manifest.splits.items():
        documents, tokens = sum(shard.documents for shard in shards), sum(shard.tokens for shard in shards)
        splits.add_row(name, f"{documents:,}", f"{tokens:,}", f"{len(shards):,}")
    return facts, splits
