"""Labelled text: JSON lines or CSV with named fields, or a folder of text files whose subfolders are the labels."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import (
    DRAWN_BY_NUMBER,
    GIVEN_BY_NAMES,
    TEXT,
    Corpus,
    RawExample,
    split_of,
    splits_by_name,
)
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import csv_rows, joined_text, json_lines, kind_of
from data_pipeline.sources.text import files_below

LABELLED = "labelled"
LABEL = "label"
"""The field of an example that holds the name of its folder."""


def labelled(source: Path, *, texts: Mapping[str, str], fields: Mapping[str, str]) -> Corpus:
    """Returns labelled examples.

    Where names of files or folders tell of splits (train, val, valid, validation, dev, test), they decide, and other
    files are skipped; where they tell of no validation, one of every 20 training examples is for validation.

    Args:
        source: a file of JSON lines (.jsonl, .ndjson) or CSV, plain or packed, or a folder of such files; or a folder
            of text files, where a file is an example with the text TEXT and the name of its folder as LABEL.
        texts: of JSON lines and CSV: which field holds each text; a list of strings is joined by line ends.
        fields: of JSON lines and CSV: which field holds each label, identifier or other value that stays with the
            example. In CSV every value is a string; in JSON strings, numbers, booleans and lists of them are kept.

    Raises:
        DataError: there are no files.
    """
    files = files_below(source, recipe=LABELLED, expects="JSON lines, CSV, or a folder of text files for every label")
    splits = splits_by_name(source, files)
    has_validation = "validation" in splits.values()

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        number = 0
        for file in splits or files:
            for example in _examples(file, reader, texts, fields, quarantine):
                split = splits.get(file)
                if split == "train" and not has_validation:
                    split = "validation" if split_of(number) == "validation" else "train"
                    number += 1
                yield RawExample(example.texts, example.fields, split)

    rule = DRAWN_BY_NUMBER
    if splits:
        rule = GIVEN_BY_NAMES if has_validation else f"{GIVEN_BY_NAMES}; one of 20 for training is for validation"
    return Corpus(
        LABELLED, {"texts": dict(texts), "fields": dict(fields)}, source, list(splits or files), read, lambda: rule
    )


def _examples(
    file: Path, reader: DocumentReader, texts: Mapping[str, str], fields: Mapping[str, str], quarantine: Quarantine
) -> Iterator[RawExample]:
    kind = kind_of(file)
    if kind == "parquet":
        raise DataError(f"{file}: labelled text is read from JSON lines, CSV or folders of text, not from Parquet")
    if kind == "text":
        for chunks in reader.documents(file):
            text = b"".join(chunks).decode(errors="replace")
            yield RawExample({TEXT: text}, {LABEL: file.parent.name, "id": file.stem})
        return
    for name, record in csv_rows(file, reader) if kind == "csv" else json_lines(file, reader):
        try:
            values = json.loads(record) if isinstance(record, bytes) else record
            example = RawExample(
                {text: joined_text(values[field]) for text, field in texts.items()},
                {kept: _kept(values[field]) for kept, field in fields.items()},
            )
        except (ValueError, KeyError, TypeError) as error:
            quarantine.add(name, f"the record has not the fields that were named ({type(error).__name__}: {error})")
        else:
            yield example


def _kept(value: Any) -> Any:
    """Returns a value that an example may hold.

    Raises:
        TypeError: it is an object, nothing, or a list of such.
    """
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, str | int | float):
            raise TypeError(f"found {type(each).__name__}")
    return value
