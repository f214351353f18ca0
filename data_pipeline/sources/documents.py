"""Documents as text, whatever they are kept in: text files and records of all forms (`records.py`), in one folder.

Every record is a document, in the field that is named; any other file is one document. Memory does not grow with the
source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from data_pipeline.sources.corpora import TEXT, Corpus, RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Content, Reading, contents, field_of, joined_text, text_damage
from data_pipeline.sources.text import files_below

DOCUMENTS = "documents"
LONGEST_DOCUMENT = 1 << 22
"""Characters; what is longer is cut behind a line, or between words, into several documents."""


@dataclass(frozen=True)
class TextDocument:
    """One document and where it stands: `folder/file.jsonl:17`."""

    name: str
    text: str


def documents(
    source: Path, *, field: str = "text", encoding: str | None = None, read_as: Literal["text"] | None = None
) -> Corpus:
    """Returns the documents at `source`; arguments and errors as in `find_documents` and `read_documents`."""
    files = find_documents(source)
    reading = Reading((field,), encoding, read_as)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        for document in read_documents(files, reader, reading, quarantine=quarantine):
            yield RawExample({TEXT: document.text})

    return Corpus(DOCUMENTS, {"field": field, **reading.settings}, source, files, read)


def find_documents(source: Path | None) -> list[Path]:
    """Returns the files of a corpus in their fixed, shuffled order.

    Raises:
        DataError: there are none.
    """
    return files_below(
        source, recipe=DOCUMENTS, expects="a file or a folder of text, JSON lines, JSON arrays, CSV or Parquet"
    )


def read_documents(
    files: list[Path], reader: DocumentReader, reading: Reading, *, quarantine: Quarantine
) -> Iterator[TextDocument]:
    """Yields the documents in a fixed order.

    Args:
        files: what is read, with `reader`.
        reading: how; its one field is where records keep the text. A list of strings is joined by line ends.
        quarantine: takes records without text in that field, and files whose encoding is not known.

    Raises:
        DataError: a file cannot be read, or more documents are damaged than `quarantine` allows.
    """
    for file in files:
        for content in contents(file, reader, reading, quarantine):
            found = _plain_text if content.form == "text" else _records
            for document in found(content, reading, quarantine):
                if len(document.text) <= LONGEST_DOCUMENT:
                    yield document
                else:
                    yield from (TextDocument(document.name, part) for part in _parts(document.text))


def _plain_text(content: Content, reading: Reading, quarantine: Quarantine) -> Iterator[TextDocument]:
    pending, is_checked = "", False
    for chunk in chain(content.text, [None]):
        pending += chunk or ""
        if chunk is not None and len(pending) <= LONGEST_DOCUMENT:
            continue
        if not is_checked:
            # All of it, before any of it is taken: a file is damaged as a whole.
            whole = [pending] if chunk is None else content.text_again()
            damages = (text_damage(each, content.encoding) for each in whole)
            if damage := next(filter(None, damages), None):
                quarantine.add(content.name, damage)
                return
            is_checked = True
        *parts, rest = _parts(pending)
        if chunk is None:
            parts.append(rest)
        yield from (TextDocument(content.name, part) for part in parts)
        pending = rest


def _records(content: Content, reading: Reading, quarantine: Quarantine) -> Iterator[TextDocument]:
    (field,) = reading.fields
    for record in content.records:
        try:
            text = joined_text(field_of(record.load(), field))
        except (ValueError, TypeError) as error:
            quarantine.add(record.name, f"the record has no text in the field {field} ({error})")
        else:
            yield TextDocument(record.name, text)


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
