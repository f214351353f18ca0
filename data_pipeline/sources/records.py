"""Records of files: JSON lines (plain or packed), Parquet and CSV, with the name of each record for messages.

A file's kind is told by its name: .jsonl and .ndjson hold a record in every line, .parquet and .csv one in every row;
every other file is text. Memory does not grow with the file.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.sources.files import Document, DocumentReader

_PACKING = {".xz", ".gz", ".zip"}
_KINDS = {".jsonl": "json lines", ".ndjson": "json lines", ".parquet": "parquet", ".csv": "csv"}


def kind_of(file: Path) -> str:
    """Returns as what a file is read: text, json lines, parquet or csv."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in _PACKING:
        suffixes.pop()
    return _KINDS.get(suffixes[-1] if suffixes else "", "text")


def json_lines(file: Path, reader: DocumentReader) -> Iterator[tuple[str, bytes]]:
    """Yields the lines of a file that are not blank, each with its name: `folder/file.jsonl:17`."""
    for chunks in reader.documents(file):
        # At line feeds only: text may hold every other character at which Python would begin a new line.
        for number, line in enumerate(_lines(chunks), start=1):
            if line.strip():
                yield f"{file}:{number}", line


def csv_rows(file: Path, reader: DocumentReader) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of a file whose first row names the columns, each with its name: `folder/file.csv:17`."""
    for chunks in reader.documents(file):
        lines = (line.decode(errors="replace") + "\n" for line in _lines(chunks) if line)
        rows = csv.DictReader(lines)
        for row in rows:
            yield f"{file}:{rows.line_num}", {name: value for name, value in row.items() if name and value is not None}


def parquet_column(file: Path, reader: DocumentReader, column: str) -> Iterator[tuple[str, Any]]:
    """Yields the values of a column, each with the name of its row: `folder/file.parquet:17`.

    Raises:
        DataError: the file is damaged or has no such column.
    """
    with _parquet_file(file) as table:
        if column not in table.schema_arrow.names:
            raise DataError(f"{file} has no column {column}: name one of {', '.join(table.schema_arrow.names)}")
        number = 0
        for batch in table.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield f"{file}:{number}", value
    reader.finished(file)


def first_records(file: Path, count: int) -> list[dict[str, Any]]:
    """Returns what the first `count` lines of JSON, or rows of Parquet, hold; lines that are no objects are skipped.

    Raises:
        DataError: the file cannot be read, or none of these lines is an object.
    """
    if kind_of(file) == "parquet":
        with _parquet_file(file) as table:
            rows: list[dict[str, Any]] = next(table.iter_batches(batch_size=count)).to_pylist()
            return rows
    records = []
    for _, line in islice(json_lines(file, DocumentReader([file])), count):
        with suppress(ValueError):
            records.append(json.loads(line))
    objects = [record for record in records if isinstance(record, dict)]
    if not objects:
        raise DataError(f"{file} holds no JSON objects in its first {count} lines")
    return objects


def joined_text(value: object) -> str:
    """Returns a string, or a list of strings joined by line ends.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise TypeError(f"found {type(value).__name__}")
    # JSON can write half a character ("\\ud800"), which no UTF-8 holds; it becomes U+FFFD.
    return value.encode(errors="surrogatepass").decode(errors="replace")


def _lines(chunks: Document) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


@contextmanager
def _parquet_file(file: Path) -> Iterator[Any]:
    """Opens a file with pyarrow, and turn what it raises into one sentence."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{file} needs pyarrow to be read: pip install pyarrow") from None
    try:
        yield pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is damaged ({error}); fetch it again") from None
