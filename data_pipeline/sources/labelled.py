"""Labelled text: records with named fields, or a folder of text files whose subfolders are the labels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import (
    TEXT,
    Corpus,
    NamedSplits,
    RawExample,
)
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labels import LabelError, Problem, is_set, read_label
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Content, Reading, contents, field_of, joined_text, text_damage
from data_pipeline.sources.text import files_below

LABELLED = "labelled"
LABEL = "label"
"""The field of an example that holds its label, such as the name of its folder."""


def labelled(
    source: Path,
    *,
    texts: Mapping[str, str],
    fields: Mapping[str, str | Sequence[str]],
    labels: Mapping[str, Problem] | None = None,
    encoding: str | None = None,
    read_as: Literal["text"] | None = None,
) -> Corpus:
    """Returns labelled examples.

    Where names of files or folders tell of splits (train, val, valid, validation, dev, development, test), they decide,
    and other files are skipped; where they tell of no validation or test, of every 20 training examples one is for
    each.

    Args:
        source: a file of records (`records.py`), plain or packed, or a folder of such files; or a folder
            of text files, where a file is an example with the text TEXT and the name of its folder as LABEL.
        texts: of records: which field holds each text; a list of strings is joined by line ends. An example of which
            one is without a word has no text.
        fields: of records: which field holds each label, identifier or other value that stays with the
            example. In CSV every value is a string; else strings, numbers, booleans and lists of them are kept.
            Where several fields are named, each stands for a class, and those that hold 1 are the labels.
        labels: which of `fields` are labels, and of which problem: they are read by `read_label`, and their classes
            counted.
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
    splits = NamedSplits.of(source, files)
    columns = [name for field in fields.values() for name in ([field] if isinstance(field, str) else field)]
    reading = Reading((*texts.values(), *columns), encoding, read_as)
    problems = dict(labels or {})

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        splits.name_skipped(quarantine)
        deal = splits.dealer()
        first: dict[bool, str] = {}
        for content in chain.from_iterable(contents(file, reader, reading, quarantine) for file in splits.files):
            if splits.is_skipped(content.name):
                continue
            first.setdefault(content.form == "text", content.name)
            if len(first) == 2:
                raise DataError(
                    f"{first[True]} is text, but {first[False]} holds records: keep either, or insist with --as text "
                    "that both are text"
                )
            if content.form == "text" and len(texts) > 1:
                raise DataError(
                    f"{content.name} is text, but {' and '.join(texts.values())} are fields of records: give JSON "
                    "lines, a JSON array, CSV or Parquet"
                )
            for example in _examples(content, texts, fields, problems, quarantine):
                yield RawExample(example.texts, example.fields, deal(content.name))

    kept = {name: field if isinstance(field, str) else list(field) for name, field in fields.items()}
    settings = {"texts": dict(texts), "fields": kept, **({"labels": problems} if problems else {}), **reading.settings}
    counted = tuple(name for name, problem in problems.items() if problem != "regression")
    return Corpus(LABELLED, settings, source, splits.files, read, lambda: splits.rule, classes=counted)


def _examples(
    content: Content,
    texts: Mapping[str, str],
    fields: Mapping[str, str | Sequence[str]],
    problems: Mapping[str, Problem],
    quarantine: Quarantine,
) -> Iterator[RawExample]:
    if content.form == "text":
        text, name = "".join(content.text), Path(content.name)
        if damage := text_damage(text, content.encoding):
            quarantine.add(content.name, damage)
        else:
            label = _value({LABEL: name.parent.name}, LABEL, problems.get(LABEL))
            yield RawExample({TEXT: text}, {LABEL: label, "id": name.stem})
        return
    for record in content.records:
        try:
            values = record.load()
            found = {text: joined_text(field_of(values, field)) for text, field in texts.items()}
            if not all(text.strip() for text in found.values()):
                found = dict.fromkeys(found, "")  # without one of its texts it is none, which preparation counts
            example = RawExample(
                found, {kept: _value(values, field, problems.get(kept)) for kept, field in fields.items()}
            )
        except LabelError as error:
            quarantine.add(record.name, str(error))
        except (ValueError, TypeError) as error:
            quarantine.add(record.name, f"the record has not the fields that were named ({error})")
        else:
            yield example


def _value(record: Mapping[str, Any], field: str | Sequence[str], problem: Problem | None) -> Any:
    """Returns what an example keeps of a field, or of the fields that stand for classes.

    Raises:
        LabelError: it is no label of the problem.
        ValueError, TypeError: there is no such field, or as in `_kept`.
    """
    if not isinstance(field, str):
        return [name for name in field if is_set(field_of(record, name))]
    value = field_of(record, field)
    return _kept(value) if problem is None else read_label(value, problem)


def _kept(value: Any) -> Any:
    """Returns a value that an example may hold.

    Raises:
        TypeError: it is an object, nothing, or a list of such.
        ValueError: it is no finite number.
    """
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, str | int | float):
            raise TypeError(f"found {type(each).__name__}")
        if isinstance(each, float) and not math.isfinite(each):
            raise ValueError(f"found the number {each}")
    return value
