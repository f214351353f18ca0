"""Texts with choices, one of which is right: records with named fields."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, get_args

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import TEXT, Corpus, NamedSplits, RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.labels import LabelError, read_label
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading, contents, field_of, joined_text
from data_pipeline.sources.text import files_below

LabelAs = Literal["text", "letter", "number_from_0", "number_from_1"]
"""How a label says which choice is right."""
MULTIPLE_CHOICE = "multiple choice"
CONTEXT, QUESTION = "context", "question"
CHOICE = "choice_"
"""Begins the names of what is read of each choice: choice_0, choice_1 ..."""
CHOICES = "choices"
"""The field of an example with its choices alone."""


def multiple_choice(
    source: Path,
    *,
    context: str | None,
    question: str | None,
    choices: str | Sequence[str],
    label: str,
    label_as: LabelAs | None = None,
    encoding: str | None = None,
) -> Corpus:
    """Returns texts with choices, as pairs of the text TEXT with each of choice_0, choice_1 ...

    The text is the context, and what stands beside it the question, a space and the choice; where there is no context
    it is the question, beside the choice alone. The field LABEL is the number of the right one, 0 the first. Splits are
    told as by `labelled`.

    Args:
        source: a file of records (`records.py`), plain or packed, or a folder of such files.
        context, question: which fields hold them; None: there is none, but one of both there is.
        choices: which field holds the list of choices, or its JSON form; or several fields with one each.
        label: which field says what is right.
        label_as: how it says so; None: as a letter or as the text of a choice. A number is never guessed.
        encoding: of files that are not UTF-8.

    Raises:
        DataError: there are no files.
    """
    files = files_below(source, recipe=MULTIPLE_CHOICE, expects="JSON lines, JSON arrays, CSV or Parquet")
    splits = NamedSplits.of(source, files)
    asked = {name: field for name, field in ((CONTEXT, context), (QUESTION, question)) if field is not None}
    reading = Reading((*asked.values(), *([choices] if isinstance(choices, str) else choices), label), encoding)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        splits.name_skipped(quarantine)
        deal = splits.dealer()
        for content in chain.from_iterable(contents(file, reader, reading, quarantine) for file in splits.files):
            if splits.is_skipped(content.name):
                continue
            if content.form == "text":
                raise DataError(
                    f"{content.name} is text, but questions with choices are records: JSON lines, a JSON array, CSV or "
                    "Parquet"
                )
            for record in content.records:
                try:
                    values = record.load()
                    given = {name: read_text(values, field, name) for name, field in asked.items()}
                    found = read_choices(
                        field_of(values, choices)
                        if isinstance(choices, str)
                        else [field_of(values, each) for each in choices]
                    )
                    right = right_choice(field_of(values, label), found, label_as)
                except (ValueError, TypeError) as error:
                    quarantine.add(record.name, str(error))
                else:
                    fields = {LABEL: right, CHOICES: found, QUESTION: given.get(QUESTION, "")}
                    yield RawExample(_pairs(given, found), fields, deal(content.name))

    kept = choices if isinstance(choices, str) else list(choices)
    settings = {**asked, "choices": kept, "label": label, "label_as": label_as, **reading.settings}
    return Corpus(MULTIPLE_CHOICE, settings, source, splits.files, read, lambda: splits.rule)


def read_choices(value: Any, name: str = "choice", *, least: int = 2) -> list[str]:
    """Returns the choices of an example, or others of this `name`, given as a list of texts or of numbers, or as the
    JSON form of one.

    Raises:
        ValueError, TypeError: they are something else, of differing types or fewer than `least`, or one is empty.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"the {name}s are {value[:100]!r}, which is no JSON list") from None
    if not isinstance(value, list):
        raise TypeError(f"the {name}s are of the type {type(value).__name__}, but they should be a list")
    for place, choice in enumerate(value, start=1):
        if _is_missing(choice):
            raise ValueError(f"{name} {place} is empty")
        if not isinstance(choice, str | int | float):
            raise TypeError(
                f"{name} {place} is of the type {type(choice).__name__}, but it should be a text or a number"
            )
    if len({isinstance(choice, str) for choice in value}) > 1:
        raise TypeError(f"some {name}s are texts and some are numbers: write all of them as texts")
    if len(value) < least:
        raise ValueError(f"it has one {name} only" if value else f"it has no {name}s")
    return [joined_text(str(choice)) for choice in value]


def right_choice(label: Any, choices: Sequence[str], label_as: LabelAs | None) -> int:
    """Returns which of the choices is right, 0 the first.

    Args:
        label: as the source has it.
        choices: its choices.
        label_as: as in `multiple_choice`.

    Raises:
        LabelError: the label is missing, says none of the choices, or may mean several.
    """
    written = str(read_label(label, "single_label"))
    found = {name: _said(written, choices, name) for name in (get_args(LabelAs) if label_as is None else (label_as,))}
    meant = sorted({place for places in found.values() for place in places})
    if label_as is None and (found["number_from_0"] or found["number_from_1"]):
        raise LabelError(
            f"the label is the number {written}: say with data.label_as what it is, number_from_0 where 0 is the first "
            "choice, number_from_1 where 1 is, or the text of a choice"
        )
    if not meant:
        how = "" if label_as is None else f" as {label_as}"
        raise LabelError(f"the label {written[:100]!r} is{how} none of the {len(choices)} choices")
    if len(meant) > 1:
        raise LabelError(
            f"the label {written[:100]!r} may be choice {meant[0] + 1} or choice {meant[1] + 1}: give different "
            "choices, or say with data.label_as what the label is"
        )
    return meant[0]


def _said(written: str, choices: Sequence[str], label_as: LabelAs) -> list[int]:
    """Returns which of the choices a label may mean, read in one way."""
    if label_as == "text":
        return [place for place, choice in enumerate(choices) if choice.strip() == written]
    if label_as == "letter":
        place = ascii_uppercase.find(written.upper()) if len(written) == 1 else -1
    else:
        place = int(written) - int(label_as[-1]) if written.isascii() and written.isdecimal() else -1
    return [place] if 0 <= place < len(choices) else []


def _pairs(given: Mapping[str, str], choices: Sequence[str]) -> dict[str, str]:
    """Returns the texts of an example: what stands first, and beside it each of the choices."""
    if CONTEXT not in given:
        first, before = given[QUESTION], ""
    else:
        first, before = given[CONTEXT], f"{given[QUESTION]} " if QUESTION in given else ""
    return {TEXT: first, **{f"{CHOICE}{place}": before + choice for place, choice in enumerate(choices)}}


def read_text(record: Mapping[str, Any], field: str, name: str) -> str:
    """Returns the text in a field of a record.

    Raises:
        ValueError, TypeError: there is none, or an empty one; the sentence calls it by its `name`.
    """
    value = field_of(record, field)
    if _is_missing(value):
        raise ValueError(f"the {name} is empty")
    try:
        return joined_text(value)
    except TypeError:
        raise TypeError(f"the {name} is of the type {type(value).__name__}, but it should be a text") from None


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))
