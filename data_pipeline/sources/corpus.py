"""Documents as text, whatever they are kept in: text files, JSON lines (plain or packed) and Parquet, in one folder.

A file of JSON lines (.jsonl, .ndjson) holds a document in every line, Parquet one in every row, in the field that is
named; any other file is one document, files with NUL bytes left out. Memory does not grow with the source.
"""

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.sources.corpus_types import Corpus, Sample
from data_pipeline.sources.files import Document, DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.text import files_below

LONGEST_DOCUMENT = 1 << 22
"""Characters; what is longer is cut behind a line, or between words, into several documents."""
_PACKING = {".xz", ".gz", ".zip"}
_JSON_LINES = {".jsonl", ".ndjson"}


@dataclass(frozen=True)
class TextDocument:
    """One document and where it stands: `folder/file.jsonl:17`."""

    name: str
    text: str


def text_corpus(source: Path, *, field: str) -> Corpus:
    """Return the documents at `source` as preparation reads them; arguments and errors as in `read_corpus`."""
    files = find_corpus_files(source)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[Sample]:
        for document in read_corpus(files, reader, field=field, quarantine=quarantine):
            yield Sample((document.text,))

    return Corpus(source, files, read, field)


def find_corpus_files(source: Path | None) -> list[Path]:
    """Return the files of a corpus in their fixed, shuffled order.

    Raises:
        DataError: there are none.
    """
    return files_below(source, recipe="documents", expects="a file or a folder of text, JSON lines or Parquet")


def read_corpus(
    files: list[Path], reader: DocumentReader, *, field: str, quarantine: Quarantine
) -> Iterator[TextDocument]:
    """Yield the documents in a fixed order.

    Args:
        field: where JSON lines and Parquet keep the text; a list of strings is joined by line ends.
        quarantine: takes lines that are no JSON object with that field.

    Raises:
        DataError: a file cannot be read, or more documents are damaged than `quarantine` allows.
    """
    for file in files:
        match kind_of(file):
            case "json lines":
                documents = _json_lines(file, reader, field, quarantine)
            case "parquet":
                documents = _parquet(file, reader, field, quarantine)
            case _:
                documents = _plain_text(file, reader)
        for document in documents:
            yield from _cut(document)


def kind_of(file: Path) -> str:
    """Return as what a file is read, by its name: text, json lines or parquet."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in _PACKING:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return "json lines" if last in _JSON_LINES else "parquet" if last == ".parquet" else "text"


def _plain_text(file: Path, reader: DocumentReader) -> Iterator[TextDocument]:
    for number, chunks in enumerate(reader.documents(file)):
        first = next(chunks, b"")
        if b"\0" in first:
            continue
        name = f"{file}" if number == 0 else f"{file}:{number + 1}"
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        pending = ""
        for chunk in chain([first], chunks):
            pending += decoder.decode(chunk)
            if len(pending) > LONGEST_DOCUMENT:
                *parts, pending = _parts(pending)
                yield from (TextDocument(name, part) for part in parts)
        yield TextDocument(name, pending + decoder.decode(b"", final=True))


def _json_lines(file: Path, reader: DocumentReader, field: str, quarantine: Quarantine) -> Iterator[TextDocument]:
    for name, line in json_lines(file, reader):
        try:
            text = joined_text(json.loads(line)[field])
        except (ValueError, KeyError, TypeError) as error:
            quarantine.add(name, f"the line is no JSON object with text in the field {field} ({error})")
        else:
            yield TextDocument(name, text)


def json_lines(file: Path, reader: DocumentReader) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of a file that are not blank, each with its name: `folder/file.jsonl:17`."""
    for chunks in reader.documents(file):
        for number, line in enumerate(_lines(chunks), start=1):
            if line.strip():
                yield f"{file}:{number}", line


def first_records(file: Path, count: int) -> list[dict[str, Any]]:
    """Return what the first `count` lines of JSON, or rows of Parquet, hold; lines that are no objects are left out.

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


def _lines(chunks: Document) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


def _parquet(file: Path, reader: DocumentReader, field: str, quarantine: Quarantine) -> Iterator[TextDocument]:
    with _parquet_file(file) as table:
        if field not in table.schema_arrow.names:
            raise DataError(f"{file} has no column {field}: name one of {', '.join(table.schema_arrow.names)}")
        number = 0
        for batch in table.iter_batches(batch_size=256, columns=[field]):
            for value in batch.column(0).to_pylist():
                number += 1
                try:
                    yield TextDocument(f"{file}:{number}", joined_text(value))
                except TypeError as error:
                    quarantine.add(f"{file}:{number}", f"the row holds no text in the column {field} ({error})")
    reader.finished(file)


@contextmanager
def _parquet_file(file: Path) -> Iterator[Any]:
    """Open a file with pyarrow, and turn what it raises into one sentence."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{file} needs pyarrow to be read: pip install pyarrow") from None
    try:
        yield pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is damaged ({error}); fetch it again") from None


def joined_text(value: object) -> str:
    """Return a string, or a list of strings joined by line ends.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise TypeError(f"found {type(value).__name__}")
    # JSON can write half a character ("\\ud800"), which no UTF-8 holds; it becomes U+FFFD.
    return value.encode(errors="surrogatepass").decode(errors="replace")


def _cut(document: TextDocument) -> Iterator[TextDocument]:
    if len(document.text) <= LONGEST_DOCUMENT:
        yield document
    else:
        yield from (TextDocument(document.name, part) for part in _parts(document.text))


def _parts(text: str) -> Iterator[str]:
    """Cut into pieces of at most LONGEST_DOCUMENT characters that together are the text."""
    start = 0
    while len(text) - start > LONGEST_DOCUMENT:
        stop = start + LONGEST_DOCUMENT
        behind_line, before_word = text.rfind("\n", start, stop) + 1, text.rfind(" ", start, stop)
        stop = next((cut for cut in (behind_line, before_word) if cut > start), stop)
        yield text[start:stop]
        start = stop
    yield text[start:]
