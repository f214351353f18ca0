"""text: any text file, or every text file below a folder, as bytes.

Files of a folder are documents, in an order that is shuffled by their names, the same on every machine. Hidden files
and files that are not text (a NUL byte in their first MiB) are skipped; a single file given by name must be text.
"""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.sources import Source
from data_pipeline.sources.files import Document, DocumentReader, existing_file, shuffle_key


def _find_files(source: Path | None) -> list[Path]:
    return files_below(source, recipe="text", expects="a text file or a folder of text files")


def files_below(source: Path | None, *, recipe: str, expects: str) -> list[Path]:
    """Returns the file `source`, or every file below the folder `source` that is neither hidden nor empty, shuffled.

    Raises:
        DataError: there is none; the sentence names `recipe` and what it `expects`.
    """
    if source is None or not source.is_dir():
        return [existing_file(source, recipe=recipe, expects=expects)]
    files = [file for file in _visible_files(source) if file.is_file() and file.stat().st_size > 0]
    if not files:
        raise DataError(f"source {source} holds no text files: recipe {recipe} expects at least one that is not empty")
    return sorted(files, key=lambda file: shuffle_key(file.relative_to(source).as_posix()))


def _visible_files(folder: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]  # os.walk goes where this list says
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _read(files: list[Path], reader: DocumentReader) -> Iterator[Document]:
    for file in files:
        for document in reader.documents(file):
            first = next(document, b"")
            if b"\0" not in first:
                yield chain([first], document)
            elif len(files) == 1:
                raise DataError(f"{file} is not text: it holds NUL bytes; recipe text expects text")


SOURCE = Source(name="text", version=1, find_files=_find_files, read=_read, symbols=bytes(range(256)))
