"""text: any text file, or every text file below a folder, as bytes.

Files of a folder are documents, in an order that is shuffled by their names, the same on every machine. Hidden files
are skipped, files that are not text (a NUL byte in their first MiB) are left out and named; a single file given by name
must be text.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.sources import Source
from data_pipeline.sources.files import Document, DocumentReader, existing_file, shuffle_key
from data_pipeline.sources.quarantine import Quarantine


def _find_files(source: Path | None) -> list[Path]:
    return files_below(source, recipe="text", expects="a text file or a folder of text files")


def files_below(source: Path | None, *, recipe: str, expects: str) -> list[Path]:
    """Returns the file `source`, or every file below the folder `source` that is neither hidden nor empty, shuffled.

    Links are followed, to folders too.

    Raises:
        DataError: there is none (the sentence names `recipe` and what it `expects`), a folder cannot be read, or a link
            leads nowhere.
    """
    if source is None or not source.is_dir():
        return [existing_file(source, recipe=recipe, expects=expects)]
    files = [file for file in _visible_files(source) if _holds_something(file)]
    if not files:
        raise DataError(f"source {source} holds no text files: recipe {recipe} expects at least one that is not empty")
    return sorted(files, key=lambda file: shuffle_key(file.relative_to(source).as_posix()))


def _visible_files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}")

    for parent, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        # os.walk goes where this list says: not round in circles.
        real = Path(parent).resolve()
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and not real.is_relative_to(Path(parent, name).resolve())
        ]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _holds_something(file: Path) -> bool:
    if file.is_symlink() and not file.exists():
        raise DataError(f"{file} is a link that leads nowhere: mend or remove it")
    with suppress(FileNotFoundError):  # gone since it was listed
        return file.is_file() and file.stat().st_size > 0
    return False


def _read(files: list[Path], reader: DocumentReader, quarantine: Quarantine) -> Iterator[Document]:
    for file in files:
        for name, document in reader.named_documents(file):
            first = next(document, b"")
            if b"\0" not in first:
                yield chain([first], _checked(name, document))
            elif name == str(files[0]) and len(files) == 1:
                raise DataError(f"{file} is not text: it holds NUL bytes; recipe text expects text")
            else:
                quarantine.leave_out(name, "no text: it holds NUL bytes")


def _checked(name: str, document: Document) -> Document:
    for chunk in document:
        if b"\0" in chunk:
            raise DataError(f"{name} is not text: it holds NUL bytes behind its beginning; remove it")
        yield chunk


SOURCE = Source(name="text", version=1, find_files=_find_files, read=_read, symbols=bytes(range(256)))
