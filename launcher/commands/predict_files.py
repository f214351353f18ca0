"""`longformer predict --output`: run a model on every record of a file or folder."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.sources.choices import read_choices
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading, contents, joined_text, text_damage
from data_pipeline.sources.text import files_below
from launcher.reporting.bytes_bar import bytes_bar
from longformer.errors import LongformerError
from longformer.inference.serving import ABILITIES, example_of, open_for_many

_TOGETHER = 1_024
"""Records that are sorted by length and answered together."""
_ALL = 1 << 62


class Counts(NamedTuple):
    """How a file was answered."""

    records: int
    failed: int
    """Those that could not be read or answered, which say why."""
    cut: int
    """Texts of which the end was not read."""


class _Asked(NamedTuple):
    name: str
    """`file.jsonl:17`."""
    record: dict[str, Any]
    """What the model is asked, under its names."""
    rest: dict[str, Any]
    """The other fields."""
    damage: str | None = None


def predict_files(
    folder: Path,
    ability: str,
    source: Path,
    output: Path,
    *,
    fields: Mapping[str, str],
    parameters: Mapping[str, Any],
    batch_size: int,
) -> Counts:
    """Answers all records of a file or folder, in their order, as JSON lines; the output is there when all are done.

    Files that cannot be read at all come last.

    Args:
        folder: of the model.
        ability: a name in `longformer.inference.serving.ABILITIES`.
        source: records in any form that is known, or texts.
        output: the file to write.
        fields: names of the fields that hold what is asked, where they are others.
        parameters: of the request, the same for all.
        batch_size: texts of similar length that are classified or labelled at a time.

    Raises:
        LongformerError, DataError: the model or the source cannot be read.
        OSError: the output cannot be written.
    """
    answer_all = open_for_many(folder, ability)
    kind, example = ABILITIES[ability], example_of(folder, ability)
    wanted = {name: _columns(fields.get(name, name), value) for name, value in example.items()}
    lists = {name: kind.least.get(name, 2) for name, value in example.items() if isinstance(value, list)}
    # Tables must have the columns that are asked for, unless some of them may be absent.
    reading = Reading(() if kind.optional else [column for columns in wanted.values() for column in columns])
    settings = {**kind.parameters, **parameters}
    files = files_below(source, recipe="predict", expects="JSON lines, JSON arrays, CSV, Parquet or text")
    staging = output.with_name(f".{output.name}.part")
    records = failed = 0
    cut = _FirstOnly()
    log = logging.getLogger("longformer.inference.texts")
    log.addFilter(cut)
    try:
        with (
            bytes_bar("predicting") as report_progress,
            staging.open("w", encoding="utf-8", errors="replace") as file,
        ):
            reader = DocumentReader(files, report_progress)
            asked_for = _records(files, reader, reading, wanted, lists)
            while group := list(islice(asked_for, _TOGETHER)):
                good = [asked.record for asked in group if asked.damage is None]
                answers = iter(answer_all(good, settings, batch_size))
                for asked in group:
                    found = {"error": asked.damage} if asked.damage is not None else next(answers)
                    records, failed = records + 1, failed + ("error" in found)
                    line = {"source": asked.name, "record": asked.rest, **found}
                    # Parquet holds dates, decimals and bytes, JSON halves of surrogate pairs.
                    file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        if not records:
            raise LongformerError(f"{source} holds no text")
        staging.replace(output)
    finally:
        log.removeFilter(cut)
        staging.unlink(missing_ok=True)
    return Counts(records, failed, cut.count)


def _records(
    files: list[Path],
    reader: DocumentReader,
    reading: Reading,
    wanted: Mapping[str, Sequence[str]],
    lists: Mapping[str, int],
) -> Iterator[_Asked]:
    quarantine = Quarantine(_ALL)
    text = next(iter(wanted)) if len(wanted) == 1 else None
    named = [column for columns in wanted.values() for column in columns]
    for file in files:
        for content in contents(file, reader, reading, quarantine):
            if content.form == "text":
                whole = "".join(content.text)
                damage = text_damage(whole, content.encoding)
                if text is None:
                    damage = f"it is a text, but {' and '.join(named)} are asked for: give records"
                yield _Asked(content.name, {} if text is None or damage else {text: whole}, {}, damage)
                continue
            for record in content.records:
                try:
                    values = record.load()
                    asked = {
                        name: read_choices(given, name.removesuffix("s"), least=lists[name])
                        if name in lists
                        else joined_text(given)
                        for name, columns in wanted.items()
                        if (given := _given(values, columns))
                    }
                except (ValueError, TypeError, AttributeError) as error:
                    yield _Asked(record.name, {}, {}, f"the record cannot be read ({error})")
                else:
                    rest = {name: value for name, value in values.items() if name not in named}
                    yield _Asked(record.name, asked, rest)
    for name, reason in quarantine.items():
        yield _Asked(name, {}, {}, reason)


def _columns(field: str, example: Any) -> list[str]:
    """Returns the columns that hold what is asked for: one, or of a list several parted by commas."""
    return field.split(",") if isinstance(example, list) else [field]


def _given(values: Mapping[str, Any], columns: Sequence[str]) -> Any:
    found = [values.get(column) for column in columns]
    return found[0] if len(found) == 1 else found


class _FirstOnly(logging.Filter):
    """Lets the first warning through and counts all."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.count += 1
        return self.count == 1
