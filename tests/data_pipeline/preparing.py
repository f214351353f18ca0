"""Preparation of the two kinds of corpora that most tests need."""

from pathlib import Path
from typing import Any

from data_pipeline.prepare.prepare import prepare
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.characters import characters
from data_pipeline.sources.documents import documents


def prepare_documents(*, source: Path, field: str = "text", **options: Any) -> PreparedData:
    """Prepare the documents of a file or folder; options are those of `prepare`."""
    return prepare(documents(source, field=field), **options)


def prepare_characters(
    recipe: str, *, source: Path | None, limit_bytes: int | None = None, **options: Any
) -> PreparedData:
    """Prepare a corpus of characters; options are those of `prepare`."""
    return prepare(characters(recipe, source, limit_bytes=limit_bytes), **options)
