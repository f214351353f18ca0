"""Words with a label each: records with two lists, or columns with a word a line, as CoNLL's."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import TEXT, Corpus, NamedSplits, RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.labels import read_label
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import (
    Content,
    Reading,
    Record,
    contents,
    field_of,
    joined_text,
    lines_of,
    text_damage,
)
from data_pipeline.sources.text import files_below

TAGGED = "tagged"
BOUNDARIES = ("-DOCSTART-", "#begin document", "#end document")
"""Begin the lines that part documents (CoNLL-2003, CoNLL-2012)."""


def tagged(source: Path, *, words: str | int, labels: str | int, encoding: str | None = None) -> Corpus:
    """Returns texts of words with a label each, as the text TEXT, a word a line, and the list LABEL.

    Splits are told as by `labelled`. Of columns, a text is what stands between boundaries where a file begins with one,
    else between empty lines.

    Args:
        source: a file of records (`records.py`) or columns, plain or packed, or a folder of such files.
        words: of records, the field that holds the list of words, or its JSON form; of columns, the number of the one
            that holds the word: 1 is the first, -1 the last.
        labels: as `words`; texts or whole numbers.
        encoding: of files that are not UTF-8.

    Raises:
        DataError: there are no files.
    """
    files = files_below(source, recipe=TAGGED, expects="JSON lines, JSON arrays, CSV, Parquet, or columns of words")
    splits = NamedSplits.of(source, files)
    columns = (words, labels) if isinstance(words, int) and isinstance(labels, int) else None
    reading = Reading((str(words), str(labels)), encoding) if columns is None else Reading((), encoding, "text")

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        splits.name_skipped(quarantine)
        deal = splits.dealer()
        for content in chain.from_iterable(contents(file, reader, reading, quarantine) for file in splits.files):
            if splits.is_skipped(content.name):
                continue
            if columns is not None:
                records = _documents(content, *columns)
            elif content.form == "text":
                raise DataError(
                    f"{content.name} is text, which has no fields {words} and {labels}: of columns give the numbers, "
                    "such as 1 and -1"
                )
            else:
                records = content.records
            for record in records:
                try:
                    text, found = _tagged(record.load(), str(words), str(labels))
                except (ValueError, TypeError) as error:
                    quarantine.add(record.name, str(error))
                else:
                    yield RawExample({TEXT: text}, {LABEL: found}, deal(content.name))

    settings = {"words": words, "labels": labels, **reading.settings}
    return Corpus(
        TAGGED, settings, source, splits.files, read, lambda: splits.rule, words=(TEXT,), classes=(LABEL,)
    )  # fmt: skip


def _tagged(record: dict[str, Any], words: str, labels: str) -> tuple[str, list[str]]:
    """Returns the words of a record, one a line, and their labels.

    Raises:
        ValueError, TypeError: it has none of them, one of them is no word or label, or they are not equally many.
    """
    found = field_of(record, words)
    if isinstance(found, str) and found.lstrip().startswith("["):
        try:
            found = json.loads(found)
        except ValueError:
            raise ValueError(f"the words are {found[:100]!r}, which is no JSON list") from None
    if not isinstance(found, list):
        raise TypeError(f"{words} is of the type {type(found).__name__}, but it should be a list of words")
    for place, word in enumerate(found, start=1):
        if not isinstance(word, str) or "\n" in word:
            what = "holds a line end" if isinstance(word, str) else f"is of the type {type(word).__name__}"
            raise ValueError(f"word {place:,} {what}, but it should be a word")
    classes = read_label(field_of(record, labels), "multi_label")
    assert isinstance(classes, list)
    if len(found) != len(classes):
        raise ValueError(f"it has {len(found):,} words, but {len(classes):,} labels")
    return joined_text(found), classes


def _documents(content: Content, word: int, label: int) -> Iterator[Record]:
    """Yields the documents of columns as records with the fields `word` and `label`."""
    has_boundaries: bool | None = None
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(chain(lines_of(content.name, content.text), [BOUNDARIES[0]]), start=1):
        is_boundary = line.startswith(BOUNDARIES)
        if has_boundaries is None and line.strip():
            has_boundaries = is_boundary
        if is_boundary or not (line.strip() or has_boundaries):
            if lines:
                yield Record(f"{content.name}:{lines[0][0]}", partial(_columns, lines, word, label, content.encoding))
            lines = []
        elif line.strip():
            lines.append((number, line))


def _columns(lines: list[tuple[int, str]], word: int, label: int, encoding: str) -> dict[str, Any]:
    found: dict[str, Any] = {str(word): [], str(label): []}
    for number, line in lines:
        if damage := text_damage(line, encoding):
            raise ValueError(damage)
        cells = line.rstrip("\r").split("\t") if "\t" in line else line.split()
        for column in (word, label):
            if abs(column) > len(cells):
                raise ValueError(f"line {number:,} has {len(cells)} columns, but column {column} was named")
            found[str(column)].append(cells[column - 1 if column > 0 else column])
    return found
