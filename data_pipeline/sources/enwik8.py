"""enwik8: the first 100,000,000 bytes of the English Wikipedia dump of March 2006 with its markup (semantics.md 3.1).

The source must begin as a Wikipedia XML dump does. A shorter piece is welcome, of a longer dump the first
100,000,000 bytes are taken, for that is how enwik8 was made. Other text belongs to the recipe `text`.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.sources import Source
from data_pipeline.sources.files import Document, DocumentReader, existing_file
from data_pipeline.sources.quarantine import Quarantine


def _find_files(source: Path | None) -> list[Path]:
    return [existing_file(source, recipe="enwik8", expects="the enwik8 file, plain or as .xz, .gz or .zip")]


def _read(files: list[Path], reader: DocumentReader, quarantine: Quarantine) -> Iterator[Document]:
    for document in reader.only_document(files[0]):
        yield _checked(files[0], document)


def _checked(path: Path, chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    if not first.startswith(b"<mediawiki"):
        raise DataError(f"{path} is not enwik8: it does not begin with <mediawiki; use the recipe text for other text")
    yield first
    yield from chunks


SOURCE = Source(name="enwik8", version=1, find_files=_find_files, read=_read, symbols=None, published_bytes=100_000_000)
