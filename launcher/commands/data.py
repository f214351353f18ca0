"""`longformer data`: prepare text once, look at what was prepared, and check that it is still whole."""

import json
import sys
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import typer

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import LocalProcesses
from data_pipeline.prepare.prepare import prepare
from data_pipeline.shards.manifest import FILE
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.characters import RECIPES, characters
from data_pipeline.sources.corpora import TEXT, Corpus
from data_pipeline.sources.documents import DOCUMENTS, documents, find_documents, read_documents
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labelled import LABEL, LABELLED, labelled
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading
from data_pipeline.sources.summaries import LAYOUTS, SUMMARIES, summaries
from data_pipeline.tokenizers.subword import train_tokenizer
from launcher.backends.ray.task_map import RayTasks
from launcher.commands.output_file import writable
from launcher.reporting.bytes_bar import bytes_bar
from launcher.reporting.terminal import terminal, terminal_table
from launcher.tasks.data import open_tokenizer

app = typer.Typer(no_args_is_help=True)

_OF_SUBWORDS = (DOCUMENTS, SUMMARIES, LABELLED)

Encoding = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of files that are not UTF-8, such as cp1252; see the quarantine.")
]
ReadAs = Annotated[
    Literal["text"] | None, typer.Option("--as", help="Read files as text though they look like records.")
]
PreparedDirectory = Annotated[str, typer.Argument(help="A directory or URL made by longformer data prepare.")]


@app.command("prepare")
def prepare_command(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join([*RECIPES, *_OF_SUBWORDS])}.")],
    output: Annotated[Path, typer.Option(help="The directory to make.")],
    source: Annotated[
        Path | None,
        typer.Option(help="File or folder to read, plain or packed; none for python_library."),
    ] = None,
    limit_bytes: Annotated[
        int | None, typer.Option(help="Recipes of characters: prepare only this many bytes from the beginning.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Recipes of subwords: tokenizer.json, or a folder with vocab.json and merges.txt."),
    ] = None,
    special_tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--special-token", metavar="TOKEN", help="Special token that stands for itself in documents; repeat."
        ),
    ] = None,
    field: Annotated[
        str, typer.Option(help="documents, labelled: where records (JSON, CSV, Parquet) keep the text.")
    ] = "text",
    label: Annotated[str, typer.Option(help="labelled: where records keep the label.")] = "label",
    layout: Annotated[
        str, typer.Option(help=f"summaries: one of {', '.join(LAYOUTS)}, or names of fields.")
    ] = "document=document,summary=summary",
    encoding: Encoding = None,
    read_as: ReadAs = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; all cores where not given, one for characters.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="On this Ray cluster: auto, local or ray://HOST:PORT.")
    ] = None,
    damaged_allowed: Annotated[int, typer.Option(min=0, help="Number of documents that may be unreadable.")] = 0,
) -> None:
    """Turn a corpus into checked shards that training reads; does nothing where they are already there."""
    if recipe in _OF_SUBWORDS and limit_bytes is not None:
        raise DataError(f"{recipe} take no --limit-bytes: give a smaller source")
    if read_as is not None and recipe not in (DOCUMENTS, LABELLED):
        raise DataError(f"{recipe} takes no --as: only documents and labelled texts can be text or records")
    if encoding is not None and recipe not in _OF_SUBWORDS:
        raise DataError(f"recipe {recipe} takes no --encoding: its tokens are the bytes as they are")
    if recipe in RECIPES and special_tokens:
        raise DataError(f"recipe {recipe} takes no --special-token: its tokens are characters")
    if recipe in RECIPES and tokenizer is not None:
        raise DataError(f"recipe {recipe} takes no --tokenizer: its tokens are characters; recipe documents takes one")
    corpus: Corpus
    if recipe == DOCUMENTS:
        corpus = documents(_given("source", recipe, source), field=field, encoding=encoding, read_as=read_as)
    elif recipe == SUMMARIES:
        corpus = summaries(_given("source", recipe, source), layout, encoding=encoding)
    elif recipe == LABELLED:
        given = _given("source", recipe, source)
        corpus = labelled(given, texts={TEXT: field}, fields={LABEL: label}, encoding=encoding, read_as=read_as)
    elif near := get_close_matches(recipe, _OF_SUBWORDS, n=1):
        raise DataError(f"{recipe} is not a known recipe: did you mean {near[0]}?")
    else:
        corpus = characters(recipe, source, limit_bytes=limit_bytes)
    chosen = None
    if recipe in _OF_SUBWORDS:
        chosen = open_tokenizer(_given("tokenizer", recipe, tokenizer), special_tokens or None)
    was_there = (output / FILE).exists()
    try:
        with bytes_bar(f"preparing {recipe}") as report_progress:
            prepared = prepare(
                corpus,
                output=output,
                tokenizer=chosen,
                damaged_allowed=damaged_allowed,
                task_map=RayTasks(ray) if ray else LocalProcesses(workers) if workers else None,
                report_progress=report_progress,
            )
    except KeyboardInterrupt:
        print("stopped: finished shards are kept; the same command goes on", file=sys.stderr)
        raise
    if was_there:
        print(f"{output} is up to date: the source has not changed, nothing to do")
    _show(prepared)


@app.command("train-tokenizer")
def train_tokenizer_command(
    source: Annotated[Path, typer.Option(help="File or folder of text or records.")],
    output: Annotated[Path, typer.Option(callback=writable, help="The tokenizer.json to write.")],
    vocabulary_size: Annotated[int, typer.Option(help="Tokens, RoBERTa's five special ones included.")] = 50_265,
    field: Annotated[str, typer.Option(help="Where records (JSON, CSV, Parquet) keep the text.")] = "text",
    encoding: Encoding = None,
    read_as: ReadAs = None,
) -> None:
    """Train a byte-level BPE tokenizer on documents; the same documents give the same tokenizer."""
    if output.exists():
        raise DataError(f"{output} exists already: choose another name or delete it")
    files = find_documents(source)
    with bytes_bar("reading documents") as report_progress:
        reading = Reading((field,), encoding, read_as)
        found = read_documents(files, DocumentReader(files, report_progress), reading, quarantine=Quarantine(0))
        trained = train_tokenizer((document.text for document in found), vocabulary_size=vocabulary_size)
    trained.save(output)
    print(f"{output}: {trained.vocabulary_size:,} tokens, sha256 {trained.sha256[:12]}")


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
    print(f"{directory} is whole: {prepared.examples:,} samples agree with their checksums")


def _given(name: str, recipe: str, path: Path | None) -> Path:
    if path is None:
        raise DataError(f"{recipe} need a {name}: give --{name}")
    return path


def _show(prepared: PreparedData) -> None:
    manifest = prepared.manifest
    corpus, tokenizer = manifest.corpus, manifest.tokenizer
    facts = [
        ("corpus", str(corpus)),
        ("source", corpus.path or "the running Python"),
        ("examples", f"{corpus.examples:,} in {corpus.files:,} files, {corpus.empty_examples:,} of them empty"),
        ("damaged", f"{corpus.damaged_examples:,}"),
        ("files left out", f"{corpus.left_out_files:,}"),
        ("tokenizer", f"{tokenizer.vocabulary_size:,} tokens, {tokenizer.file}, sha256 {tokenizer.sha256[:12]}"),
        ("split", corpus.split_rule),
        ("fingerprint", manifest.fingerprint),
    ]
    splits = [
        (name, f"{sum(shard.examples for shard in shards):,}", f"{prepared.tokens(name):,}", f"{len(shards):,}")
        for name, shards in manifest.splits.items()
    ]
    terminal().print(
        terminal_table(("", ""), facts, words=("",)),
        terminal_table(("split", "examples", "tokens", "shards"), splits),
        sep="\n",
        highlight=False,
        markup=False,
    )
    for line in corpus.omissions:
        print(line)
