"""HotpotQA (Yang et al. 2018): questions that take two of ten paragraphs, and the sentences that answers rest on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import TEXT, Corpus, NamedSplits, RawExample, spans_field
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.questions import ANSWERS, ID, QUESTION, places_of
from data_pipeline.sources.records import Reading, contents, field_of, joined_text
from data_pipeline.sources.text import files_below

HOTPOTQA = "hotpotqa"
PARAGRAPHS, FACTS, KIND = "paragraphs", "facts", "kind"
"""Fields of an example: the title and the sentences of each paragraph; the title and the number of each sentence that
the answer rests on; and whether a question compares or goes by a bridge."""
VERDICTS = ("yes", "no")
"""Answers that are no pieces of the paragraphs."""


class Paragraph(NamedTuple):
    """A paragraph of a context."""

    title: str
    sentences: Sequence[str]


def hotpotqa(source: Path, *, selected: Path | None = None, encoding: str | None = None) -> Corpus:
    """Returns questions, with the texts QUESTION and TEXT: the title and the sentences of each paragraph, one a line.

    The answer is marked in the sentences it rests on; where it stands in none of them, in their paragraphs, and last in
    titles. Splits are told as by `labelled`; of `hotpot_dev_distractor_v1.json` it is validation.

    Args:
        source: a file of HotpotQA in the distractor setting, as published or with the columns of `datasets`, plain or
            packed, or a folder of such files.
        selected: a folder with paragraphs-train.json and those of the other splits, each with the numbers of the
            paragraphs of every question that are read; None: all are.
        encoding: of files that are not UTF-8.

    Raises:
        DataError: there are no files.
    """
    lists = [] if selected is None else sorted(selected.glob("paragraphs-*.json"))
    chosen = None if selected is None else _selected(selected, lists)
    files = files_below(source, recipe=HOTPOTQA, expects="files of HotpotQA, such as hotpot_train_v1.1.json")
    splits = NamedSplits.of(source, files)
    reading = Reading((QUESTION, "answer", "supporting_facts", "context"), encoding)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        splits.name_skipped(quarantine)
        deal = splits.dealer()
        known: set[tuple[str | None, str]] = set()
        for content in chain.from_iterable(contents(file, reader, reading, quarantine) for file in splits.files):
            if splits.is_skipped(content.name):
                continue
            if content.form == "text":
                raise DataError(f"{content.name} is text, but questions of HotpotQA are a JSON array of records")
            for record in content.records:
                try:
                    example = _example(record.load(), Path(record.name).name, chosen)
                    name = splits.names.get(content.name), example.fields[ID]
                    if name in known:
                        raise ValueError(f"another question has the same id, {example.fields[ID]}")
                except (ValueError, TypeError) as error:
                    quarantine.add(record.name, str(error))
                else:
                    known.add(name)
                    yield RawExample(example.texts, example.fields, deal(content.name))

    settings = {**reading.settings, **({} if selected is None else {"selected": str(selected)})}
    return Corpus(
        HOTPOTQA, settings, source, [*splits.files, *lists], read, lambda: splits.rule, words=(TEXT,), spans=(TEXT,)
    )


def _selected(folder: Path, files: Sequence[Path]) -> dict[str, list[int]]:
    """Returns the numbers of the paragraphs that are read of each question."""
    if not files:
        raise DataError(
            f"{folder} holds no paragraphs-train.json: name the result of a run with evaluation.select_paragraphs"
        )
    try:
        return {name: numbers for file in files for name, numbers in json.loads(file.read_text("utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{files[0]} or another of its folder is damaged ({error})") from None


def _example(record: Mapping[str, Any], name: str, chosen: Mapping[str, Sequence[int]] | None) -> RawExample:
    """Returns the example of a record, called by its `name` where it has no id, with the paragraphs that are `chosen`.

    Raises:
        ValueError, TypeError: a field is missing or of another form, or a fact is in none of the paragraphs.
    """
    question, answer = (_line(field_of(record, field), f"the {field}") for field in (QUESTION, "answer"))
    if not question.strip() or not answer.strip():
        raise ValueError(f"the {'answer' if question.strip() else 'question'} is empty")
    paragraphs = _paragraphs(field_of(record, "context"))
    # Some facts of the published files count beyond the last sentence; the published script keeps them too.
    facts = _facts(field_of(record, "supporting_facts"))
    titles = [paragraph.title for paragraph in paragraphs]
    if missing := [title for title, _ in facts if title not in titles]:
        raise ValueError(f"the supporting fact {missing[0]!r} is the title of none of its paragraphs")
    identifier = str(record.get("_id", record.get("id", name)))
    if chosen is not None:
        if identifier not in chosen:
            raise ValueError(f"no paragraphs were selected for the question {identifier}")
        paragraphs = [paragraphs[number] for number in chosen[identifier]]
    lines = [line for paragraph in paragraphs for line in (paragraph.title, *paragraph.sentences)]
    fields = {
        ID: identifier,
        QUESTION: question,
        ANSWERS: [answer],
        PARAGRAPHS: [[paragraph.title, list(paragraph.sentences)] for paragraph in paragraphs],
        FACTS: facts,
        KIND: record.get("type", ""),
        spans_field(TEXT): [] if answer in VERDICTS else _places(answer, paragraphs, facts),
    }
    return RawExample({TEXT: "\n".join(lines), QUESTION: question}, fields)


def _places(
    answer: str, paragraphs: Sequence[Paragraph], facts: Sequence[tuple[str, int]]
) -> list[tuple[int, int, int]]:
    """Returns the line, begin and end, in characters, of every place at which an answer is marked."""
    places: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    line = 0
    for title, sentences in paragraphs:
        for sentence, text in enumerate((title, *sentences), start=-1):
            places[title, sentence] = [(line, start, end) for start, end in places_of(answer, text)]
            line += 1
    golden = {title for title, _ in facts}
    nearer = (
        [place for fact in dict.fromkeys(facts) for place in places.get(fact, ())],
        [place for (title, sentence), found in places.items() if title in golden and sentence >= 0 for place in found],
        [place for (title, _), found in places.items() if title in golden for place in found],
        [place for found in places.values() for place in found],
    )
    return next(filter(None, nearer), [])


def _paragraphs(value: Any) -> list[Paragraph]:
    """Returns the paragraphs of a context: pairs of a title and its sentences, or an object with a list of each."""
    if isinstance(value, Mapping):
        value = list(zip(field_of(value, "title"), field_of(value, "sentences"), strict=True))
    if not isinstance(value, list) or not value:
        raise TypeError("the context should be a list of titles with their sentences")
    found = []
    for number, each in enumerate(value, start=1):
        if not isinstance(each, list | tuple) or len(each) != 2 or not isinstance(each[1], list) or not each[1]:
            raise TypeError(f"paragraph {number} of the context should be a title and its sentences")
        sentences = [_line(sentence, f"a sentence of paragraph {number}") for sentence in each[1]]
        found.append(Paragraph(_line(each[0], f"the title of paragraph {number}"), sentences))
    return found


def _facts(value: Any) -> list[tuple[str, int]]:
    if isinstance(value, Mapping):
        value = list(zip(field_of(value, "title"), field_of(value, "sent_id"), strict=True))
    if not isinstance(value, list) or not all(
        isinstance(each, list | tuple) and len(each) == 2 and isinstance(each[1], int) for each in value
    ):
        raise TypeError("the supporting facts should be pairs of a title and the number of a sentence")
    return [(_line(title, "the title of a fact"), number) for title, number in value]


def _line(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is of the type {type(value).__name__}, but it should be a text")
    return joined_text(value).replace("\n", " ")
