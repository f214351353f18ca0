"""Labelled text: records with named fields, or a folder of text files whose subfolders are the labels."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from data_pipeline.sources.corpora import (
    DRAWN_BY_NUMBER,
    GIVEN_BY_NAMES,
    TEXT,
    Corpus,
    RawExample,
    leave_out_others,
    split_of,
    splits_by_name,
)
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading, contents, decoding_damage, joined_text
from data_pipeline.sources.text import files_below

LABELLED = "labelled"
LABEL = "label"
"""The field of an example that holds the name of its folder."""


def labelled(
    source: Path,
    *,
    texts: Mapping[str, str],
    fields: Mapping[str, str],
    encoding: str | None = None,
    read_as: Literal["text"] | None = None,
) -> Corpus:
    """Returns labelled examples.

    Where names of files or folders tell of splits (train, val, valid, validation, dev, test), they decide, and other
    files are skipped; where they tell of no validation, one of every 20 training examples is for validation.

    Args:
        source: a file of records (`records.py`), plain or packed, or a folder of such files; or a folder
            of text files, where a file is an example with the text TEXT and the name of its folder as LABEL.
        texts: of records: which field holds each text; a list of strings is joined by line ends.
        fields: of records: which field holds each label, identifier or other value that stays with the
            example. In CSV every value is a string; else strings, numbers, booleans and lists of them are kept.
        encoding: of files that are not UTF-8.
        read_as: insists that files are text, whatever they look like.

    Raises:
        DataError: there are no files.
    """
    files = files_below(
        source,
        recipe=LABELLED,
        expects="JSON lines, JSON arrays, CSV, Parquet, or a folder of text files for every label",
    )
    splits = splits_by_name(source, files)
    has_validation = "validation" in splits.values()

    reading = Reading((*texts.values(), *fields.values()), encoding, read_as)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        leave_out_others(files, splits, quarantine)
        number = 0
        for file in splits or files:
            for example in _examples(file, reader, reading, texts, fields, quarantine):
                split = splits.get(file)
                if split == "train" and not has_validation:
                    split = "validation" if split_of(number) == "validation" else "train"
                    number += 1
                yield RawExample(example.texts, example.fields, split)

    rule = DRAWN_BY_NUMBER
    if splits:
        rule = GIVEN_BY_NAMES if has_validation else f"{GIVEN_BY_NAMES}; one of 20 for training is for validation"
    settings = {"texts": dict(texts), "fields": dict(fields), **reading.settings}
    return Corpus(LABELLED, settings, source, list(splits or files), read, lambda: rule)


def _examples(
    file: Path,
    reader: DocumentReader,
    reading: Reading,
    texts: Mapping[str, str],
    fields: Mapping[str, str],
    quarantine: Quarantine,
) -> Iterator[RawExample]:
    for content in contents(file, reader, reading, quarantine):
        if content.form == "text":
            text = "".join(content.text)
            if damage := decoding_damage(text, content.encoding):
                quarantine.add(content.name, damage)
            else:
                yield RawExample({TEXT: text}, {LABEL: file.parent.name, "id": file.stem})
            continue
        for record in content.records:
            try:
                values = record.load()
                example = RawExample(
                    {text: joined_text(values[field]) for text, field in texts.items()},
                    {kept: _kept(values[field]) for kept, field in fields.items()},
                )
            except (ValueError, KeyError, TypeError) as error:
                reason = f"the record has not the fields that were named ({type(error).__name__}: {error})"
                quarantine.add(record.name, reason)
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
