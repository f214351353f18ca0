"""Prepare a corpus: source -> text -> splits -> tokens -> shards, index, vocabulary and manifest, all or nothing.

Prepared data is content-addressed. Asked again with an unchanged source there is nothing to do; a directory that holds
anything else is never overwritten.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.shards.stream_dataset import PreparedData
from data_pipeline.shards.stream_manifest import Manifest, RecipeRecord, SourceRecord, SplitRecord, is_prepared
from data_pipeline.shards.stream_shards import TOKENS_PER_MEMBER, index_path, write_index, write_shards
from data_pipeline.sources import Source, enwik8, python_library, text, text8
from data_pipeline.sources.corpus_types import DOCUMENTS, SUMMARIES
from data_pipeline.sources.files import Document, DocumentReader, ReportProgress, source_signature
from data_pipeline.sources.splits import CollectedText, collect, split_ranges
from data_pipeline.staging import staged_directory
from data_pipeline.tokenizers.byte import Vocabulary

_SOURCES = {module.SOURCE.name: module.SOURCE for module in (enwik8, text8, text, python_library)}
RECIPES = tuple(_SOURCES)
"""Of characters; DOCUMENTS and SUMMARIES, of subwords, stand beside them (data_pipeline/prepare/documents.py)."""
_SMALLEST_TEXT = 100


def prepare(
    recipe: str,
    *,
    source: Path | None,
    output: Path,
    limit_bytes: int | None = None,
    report_progress: ReportProgress | None = None,
) -> PreparedData:
    """Return the prepared data in `output`, making it first where it is not there yet.

    Whether a source changed is judged by its files' names, sizes and times of change, as make and rsync do. Where
    those differ the source is read again, and the result compared by content.

    Args:
        recipe: one of RECIPES.
        source: the file or folder to read; None for python_library.
        output: the directory to make; its parents are made too.
        limit_bytes: prepare only the first so many bytes of the (uncompressed, cleaned) text.
        report_progress: called with (done, total) in bytes of the source as stored.

    Raises:
        DataError: unknown recipe; source missing, empty, damaged or of another kind; `output` holds something else;
            no space left. Nothing is left behind.
    """
    if limit_bytes is not None and limit_bytes < _SMALLEST_TEXT:
        raise DataError(f"limit_bytes is {limit_bytes}: at least {_SMALLEST_TEXT} are needed to hold out some text")
    chosen = _source_named(recipe)
    asked = RecipeRecord(name=chosen.name, version=chosen.version, limit_bytes=limit_bytes)
    files = chosen.find_files(source)
    signature = source_signature(files)
    documents = chosen.read(files, DocumentReader(files, report_progress))
    limit = min((size for size in (limit_bytes, chosen.published_bytes) if size is not None), default=None)

    if is_prepared(output):
        existing = PreparedData.open(output)
        _check_unchanged(existing, asked, signature, documents, limit)
        return existing
    with staged_directory(output) as staging:
        collected = collect(documents, staging / "text", limit=limit)
        if collected.size < _SMALLEST_TEXT:
            raise DataError(
                f"source {source} holds only {collected.size} bytes of text: "
                f"recipe {recipe} needs at least {_SMALLEST_TEXT} to hold out some of them"
            )
        vocabulary = Vocabulary(chosen.symbols or collected.symbols)
        Manifest(
            recipe=asked,
            source=SourceRecord(
                path=str(source.absolute()) if source else None,
                files=len(files),
                signature=signature,
                documents=len(collected.document_ends),
                text_bytes=collected.size,
                text_sha256=collected.sha256,
            ),
            split_rule=_split_rule(chosen, collected.size),
            vocabulary=tuple(vocabulary.symbols),
            token_type="uint8",
            splits=_write_splits(staging, collected, vocabulary),
        ).save(staging)
        vocabulary.save(staging / "vocabulary.json")
        collected.path.unlink()
    return PreparedData.open(output)


def _source_named(recipe: str) -> Source:
    if recipe not in _SOURCES:
        near = get_close_matches(recipe, [*RECIPES, DOCUMENTS, SUMMARIES], n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(RECIPES)}"
        raise DataError(f"{recipe} is not a known recipe: {hint}")
    return _SOURCES[recipe]


def _check_unchanged(
    existing: PreparedData, asked: RecipeRecord, signature: str, documents: Iterator[Document], limit: int | None
) -> None:
    """Return when `existing` is what was asked for; its content decides where the signature of the source differs."""
    manifest = existing.manifest
    if manifest.recipe != asked:
        raise DataError(
            f"{existing.directory} already holds {manifest.recipe}, not {asked}: choose another output directory or "
            "delete this one"
        )
    for split in manifest.splits:
        existing.split(split)
    if manifest.source.signature == signature:
        return
    if collect(documents, Path(os.devnull), limit=limit).sha256 != manifest.source.text_sha256:
        raise DataError(
            f"{existing.directory} was prepared from other text than the source holds now: choose another output "
            "directory or delete this one"
        )
    replace(manifest, source=replace(manifest.source, signature=signature)).save(existing.directory)


def _write_splits(staging: Path, collected: CollectedText, vocabulary: Vocabulary) -> dict[str, SplitRecord]:
    records = {}
    for split, span in split_ranges(collected.size, collected.document_ends).items():
        members = write_shards(staging, split, (vocabulary.encode(block) for block in _blocks(collected.path, span)))
        shards = dict.fromkeys(member.shard for member in members)
        records[split] = SplitRecord(
            tokens=len(span),
            samples=len(members),
            shards={shard: (staging / shard).stat().st_size for shard in shards},
            index_sha256=write_index(index_path(staging, split), members),
        )
    return records


def _blocks(path: Path, span: range) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(span.start)
        for start in range(span.start, span.stop, TOKENS_PER_MEMBER):
            yield file.read(min(TOKENS_PER_MEMBER, span.stop - start))


def _split_rule(source: Source, size: int) -> str:
    if source.published_bytes is None:
        return "first 90, next 5, last 5 percent of the text, cut between documents where one ends nearby"
    if size == source.published_bytes:
        return f"the published split of {source.name}: 90,000,000 / 5,000,000 / 5,000,000"
    return (
        f"first 90, next 5, last 5 percent of {size:,} bytes: not the published split of {source.name} "
        "(90,000,000 / 5,000,000 / 5,000,000), so results do not compare with published ones"
    )
