"""Documents as text, whatever they are kept in: text files, JSON lines (plain or packed) and Parquet, in one folder.

A file of JSON lines holds a document in every line, Parquet one in every row, in the field that is named; any other
file is one document, files with NUL bytes skipped. Memory does not grow with the source.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from data_pipeline.sources.corpora import TEXT, Corpus, RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import joined_text, json_lines, kind_of, parquet_column
from data_pipeline.sources.text import files_below

DOCUMENTS = "documents"
LONGEST_DOCUMENT = 1 << 22
"""Characters; what is longer is cut behind a line, or between words, into several documents."""


@dataclass(frozen=True)
class TextDocument:
    """One document and where it stands: `folder/file.jsonl:17`."""

    name: str
    text: str


def documents(source: Path, *, field: str = "text") -> Corpus:
    """Returns the documents at `source`; arguments and errors as in `find_documents` and `read_documents`."""
    files = find_documents(source)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        for document in read_documents(files, reader, field=field, quarantine=quarantine):
            yield RawExample({TEXT: document.text})

    return Corpus(DOCUMENTS, {"field": field}, source, files, read)


def find_documents(source: Path | None) -> list[Path]:
    """Returns the files of a corpus in their fixed, shuffled order.

    Raises:
        DataError: there are none.
    """
    return files_below(source, recipe=DOCUMENTS, expects="a file or a folder of text, JSON lines or Parquet")


def read_documents(
    files: list[Path], reader: DocumentReader, *, field: str, quarantine: Quarantine
) -> Iterator[TextDocument]:
    """Yields the documents in a fixed order.

    Args:
        field: where JSON lines and Parquet keep the text; a list of strings is joined by line ends.
        quarantine: takes lines that are no JSON object with that field.

    Raises:
        DataError: a file cannot be read, or more documents are damaged than `quarantine` allows.
    """
    for file in files:
        match kind_of(file):
            case "json lines":
                found = _json_lines(file, reader, field, quarantine)
            case "parquet":
                found = _parquet(file, reader, field, quarantine)
            case _:
                found = _plain_text(file, reader)
        for document in found:
            if len(document.text) <= LONGEST_DOCUMENT:
                yield document
            else:
                yield from (TextDocument(document.name, part) for part in _parts(document.text))


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


def _parquet(file: Path, reader: DocumentReader, field: str, quarantine: Quarantine) -> Iterator[TextDocument]:
    for name, value in parquet_column(file, reader, field):
        try:
            yield TextDocument(name, joined_text(value))
        except TypeError as error:
            quarantine.add(name, f"the row holds no text in the column {field} ({error})")


def _parts(text: str) -> Iterator[str]:
    """Cuts into pieces of at most LONGEST_DOCUMENT characters that together are the text."""
    start = 0
    while len(text) - start > LONGEST_DOCUMENT:
        stop = start + LONGEST_DOCUMENT
        behind_line, before_word = text.rfind("\n", start, stop) + 1, text.rfind(" ", start, stop)
        stop = next((cut for cut in (behind_line, before_word) if cut > start), stop)
        yield text[start:stop]
        start = stop
    yield text[start:]
