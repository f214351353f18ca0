"""Questions about a text with the pieces of it that answer them: SQuAD's files, or records with named fields."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import TEXT, Corpus, NamedSplits, RawExample, spans_field
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading, Record, contents, field_of, joined_text
from data_pipeline.sources.text import files_below

QUESTIONS = "questions"
ID, QUESTION, CONTEXT, ANSWERS = "id", "question", "context", "answers"
"""The fields of an example: texts as the source has them, and the texts of its answers, of which there may be none."""
_IMPOSSIBLE = "is_impossible"
_START = "answer_start"


class Answer(NamedTuple):
    """One text that answers a question."""

    text: str
    start: int | None
    """Where it begins in the context, in characters; None: anywhere."""


def questions(
    source: Path,
    *,
    context: str,
    question: str,
    answers: str | Sequence[str],
    identifier: str | None,
    encoding: str | None = None,
) -> Corpus:
    """Returns questions, with the texts TEXT (the context) and QUESTION, and the fields ID, QUESTION, CONTEXT, ANSWERS.

    The answers are marked in TEXT where the source says that they stand, else wherever they do. A question without
    answers, or with `is_impossible`, cannot be answered from its context. Splits are told as by `labelled`.

    Args:
        source: a file of records (`records.py`) or in SQuAD's layout, plain or packed, or a folder of such files.
        context: of records, which field holds the text: a string, or strings that are joined by line ends; or the way
            to it through objects and lists, such as `paragraphs.text`.
        question: which field holds what is asked.
        answers: which holds the answers, or which several: a text, a list of texts, objects with `text` and
            `answer_start`, an object with a list of each, or the JSON form of one of them.
        identifier: which holds a name of its own; None: where the record stands is its name.
        encoding: of files that are not UTF-8.

    Raises:
        DataError: there are no files.
    """
    files = files_below(source, recipe=QUESTIONS, expects="SQuAD's JSON, JSON lines, JSON arrays, CSV or Parquet")
    splits = NamedSplits.of(source, files)
    named = [answers] if isinstance(answers, str) else list(answers)
    columns = (context.partition(".")[0], question, *named, *([] if identifier is None else [identifier]))
    reading = Reading(columns, encoding)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        splits.name_skipped(quarantine)
        deal = splits.dealer()
        known: set[tuple[str | None, str]] = set()
        for content in chain.from_iterable(contents(file, reader, reading, quarantine) for file in splits.files):
            if splits.is_skipped(content.name):
                continue
            if content.form == "text":
                raise DataError(
                    f"{content.name} is text, but questions are records: SQuAD's JSON, JSON lines, a JSON array, CSV "
                    "or Parquet"
                )
            for record in content.records:
                try:
                    asked = list(_asked(record, context, question, named, identifier))
                except (ValueError, TypeError) as error:
                    quarantine.add(record.name, str(error))
                    continue
                for values in asked:
                    name = splits.names.get(content.name), values[ID]
                    try:
                        example = _example(values)
                        if name in known:
                            raise ValueError(f"another question has the same {identifier or ID}, {values[ID]}")
                    except (ValueError, TypeError) as error:
                        where = record.name if len(asked) == 1 else f"{record.name} question {values[ID]}"
                        quarantine.add(where, str(error))
                    else:
                        known.add(name)
                        yield RawExample(example.texts, example.fields, deal(content.name))

    settings = {CONTEXT: context, QUESTION: question, ANSWERS: named, ID: identifier, **reading.settings}
    return Corpus(QUESTIONS, settings, source, splits.files, read, lambda: splits.rule, spans=(TEXT,))


def read_answers(value: Any) -> list[Answer]:
    """Returns the answers that a field holds, in any of the forms that `questions` names.

    Raises:
        ValueError, TypeError: it is of another form, or one of them is empty.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"the answers are {value[:100]!r}, which is no JSON") from None
    if isinstance(value, Mapping):
        texts, starts = field_of(value, "text"), value.get(_START)
        if isinstance(texts, list):
            given = [None] * len(texts) if starts is None else starts
            if not isinstance(given, list) or len(given) != len(texts):
                raise ValueError(f"the answers have {len(texts)} texts, but not as many numbers in {_START}")
            value = [{"text": text, _START: start} for text, start in zip(texts, given, strict=True)]
        else:
            value = [value]
    elif isinstance(value, str):
        value = [value]
    if value is None:
        raise ValueError("the answers are null: write [] where the context has none")
    if not isinstance(value, list):
        raise TypeError(f"the answers are of the type {type(value).__name__}, but they should be texts")
    return [_answer(each) for each in value]


def places_of(answer: str, context: str) -> list[tuple[int, int]]:
    """Returns where an answer stands in a context, in characters: as words of its own, or if never so, as it does."""
    written = re.escape(answer)
    for pattern in (rf"(?<!\w){written}(?!\w)", written):
        if found := [match.span() for match in re.finditer(pattern, context)]:
            return found
    return []


def _answer(value: Any) -> Answer:
    text, start = (field_of(value, "text"), value.get(_START)) if isinstance(value, Mapping) else (value, None)
    if not isinstance(text, str):
        raise TypeError(f"an answer is of the type {type(text).__name__}, but it should be a text")
    if not text.strip():
        raise ValueError("an answer is empty: write [] where the context has none")
    if start is not None and (isinstance(start, bool) or not isinstance(start, int) or start < 0):
        raise ValueError(f"{_START} is {start!r}, but it should count characters from 0")
    return Answer(joined_text(text), start)


def _asked(
    record: Record, context: str, question: str, answers: Sequence[str], identifier: str | None
) -> Iterator[dict[str, Any]]:
    """Yields what each question of a record has, under the names of the fields of an example; answers as they stand.

    Raises:
        ValueError, TypeError: the record has not the fields that are named.
    """
    values = record.load()
    if isinstance(values.get("data"), list) and context not in values:
        for paragraph in (each for article in values["data"] for each in field_of(article, "paragraphs")):
            for asked in field_of(paragraph, "qas"):
                yield {
                    ID: str(field_of(asked, ID)),
                    CONTEXT: field_of(paragraph, CONTEXT),
                    QUESTION: field_of(asked, QUESTION),
                    ANSWERS: [] if asked.get(_IMPOSSIBLE) else [field_of(asked, ANSWERS)],
                }
        return
    is_impossible = values.get(_IMPOSSIBLE) in (True, "true", "True", "1")
    yield {
        ID: record.name if identifier is None else str(field_of(values, identifier)),
        CONTEXT: _found(values, context),
        QUESTION: field_of(values, question),
        ANSWERS: [] if is_impossible else [field_of(values, name) for name in answers],
    }


def _found(record: Mapping[str, Any], way: str) -> Any:
    """Returns what a field holds, or what all objects on the way to it hold, as a list."""
    name, _, rest = way.partition(".")
    if way in record or not rest:
        return field_of(record, way)
    inner = field_of(record, name)
    if isinstance(inner, list):
        return [_found(each, rest) for each in inner]
    return _found(inner, rest)


def _example(values: Mapping[str, Any]) -> RawExample:
    """Returns the example of a question.

    Raises:
        ValueError, TypeError: it has no text or no question, or its answers do not stand in the text.
    """
    texts = {name: _text(values[name], name) for name in (CONTEXT, QUESTION)}
    context, answers = texts[CONTEXT], [answer for each in values[ANSWERS] for answer in read_answers(each)]
    spans: list[tuple[int, int]] = []
    for answer in answers:
        if answer.start is None:
            spans += places_of(answer.text, context)
            continue
        end = answer.start + len(answer.text)
        if context[answer.start : end] != answer.text:
            raise ValueError(
                f"the answer {_shown(answer.text)} does not stand at character {answer.start:,} of the context: there "
                f"stands {_shown(context[answer.start : end])}"
            )
        spans.append((answer.start, end))
    if answers and not spans:
        raise ValueError(f"the answer {_shown(answers[0].text)} does not stand in the context")
    fields = {
        **texts,
        ID: values[ID],
        ANSWERS: list(dict.fromkeys(answer.text for answer in answers)),
        spans_field(TEXT): sorted(set(spans)),
    }
    return RawExample({TEXT: context, QUESTION: texts[QUESTION]}, fields)


def _text(value: Any, name: str) -> str:
    if value is None:
        raise ValueError(f"the {name} is missing")
    try:
        text = joined_text(value)
    except TypeError:
        raise TypeError(f"the {name} is of the type {type(value).__name__}, but it should be a text") from None
    if not text.strip():
        raise ValueError(f"the {name} is empty")
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
