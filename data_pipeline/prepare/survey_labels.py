"""What labelled data looks like before anything is prepared: which fields hold texts and labels, and of which kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import TEXT, Corpus
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.hyperpartisan import hyperpartisan
from data_pipeline.sources.labelled import LABEL, labelled
from data_pipeline.sources.labels import LabelError, Problem, is_set, read_label
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.questions import questions
from data_pipeline.sources.records import Reading, contents, first_records, form_of, joined_text, lines_of
from data_pipeline.sources.tagged import BOUNDARIES, tagged
from data_pipeline.sources.text import files_below

_RECORDS = 1_000
"""Records that tell which field is which; lines, of columns."""
_MANY_NUMBERS = 20
"""So many different whole numbers are numbers; fewer are classes."""
_TEXTS = ("text", "document", "body", "content", "article", "review", "sentence")
_LABELS = ("label", "labels", "class", "classes", "category", "categories", "target", "sentiment", "topic", "topics")
_NUMBERS = ("score", "rating", "stars")
_IDENTIFIERS = ("id", "ids", "identifier", "uid", "guid", "uuid", "index", "key", "name", "url")
_CONTEXTS = ("context", "contexts", "passage", "document", "text", "article", "body")
_QUESTIONS = ("question", "query", "q")
_ANSWERS = ("answers", "answer", "a")
_WORDS = ("words", "tokens")
_TAGS = ("labels", "tags", "ner_tags", "ner", "bio", "pos_tags", "pos")


@dataclass(frozen=True)
class LabelledCorpus:
    """Examples with labels, and what the data section of a run file says to read them so."""

    corpus: Corpus
    section: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    """What looks wrong."""


def find_labelled(source: Path) -> LabelledCorpus:
    """Looks which fields of records hold the text and the label, and what the label is.

    Raises:
        DataError: there are no records, or no field looks like a label; the sentence names the fields.
    """
    if source.is_dir() and list(source.glob("ground-truth-*.xml*")):
        note = "layout hyperpartisan has the published splits, where 51 of 65 test articles are training articles too"
        return LabelledCorpus(hyperpartisan(source, "clean"), {"layout": "hyperpartisan_clean"}, (note,))
    file = files_below(source, recipe="labelled", expects="records, or a folder of text files for every label")[0]
    if form_of(file, Reading()) == "text":
        return _labelled(source, TEXT, LABEL, "single_label")
    records = first_records(file, _RECORDS, Reading())
    names = [name for name in records[0] if all(name in record for record in records)]
    label = _label(file, records, names)
    texts = [name for name in names if name not in ([label] if isinstance(label, str) else label)]
    sizes = {name: size for name in texts if (size := _size(records, name))}
    if not sizes:
        raise DataError(f"{file} has no field of text beside {label}; it has {', '.join(names)}")
    text = next((name for name in _TEXTS if name in sizes), max(sizes, key=lambda name: sizes[name]))
    if not isinstance(label, str):
        return _labelled(source, text, label, "multi_label")
    values = [record[label] for record in records]
    problem = _problem(values)
    whole = {float(value) for value in values if _is_number(value) and float(value).is_integer()}
    is_identifier = problem == "regression" and len(whole) == len(values)
    notes = (f"every {label} is another whole number: is it an identifier, not a label?",) if is_identifier else ()
    return _labelled(source, text, label, problem, notes)


def find_tagged(source: Path) -> LabelledCorpus:
    """Looks which fields of records hold the words and their labels, or which columns.

    Raises:
        DataError: there are none; the sentence names the fields.
    """
    file = files_below(source, recipe="tagged", expects="records, or columns of words")[0]
    words: str | int
    labels: str | int
    if form_of(file, Reading()) == "text":
        words, labels = _columns(file)
    else:
        words, labels = _lists(file, first_records(file, _RECORDS, Reading()))
    return LabelledCorpus(tagged(source, words=words, labels=labels), {"words": words, "labels": labels})


def find_questions(source: Path) -> LabelledCorpus:
    """Looks which fields of records hold contexts, questions and answers; files in SQuAD's layout need none.

    Raises:
        DataError: there are no records, or a field is missing; the sentence names the fields.
    """
    file = files_below(source, recipe="questions", expects="SQuAD's JSON or records")[0]
    record = first_records(file, 1, Reading())[0]
    names: dict[str, Any] = {"context": "context", "question": "question", "answers": "answers", "identifier": "id"}
    if isinstance(record.get("data"), list):
        return LabelledCorpus(questions(source, **names), {})
    by_name = {name.lower(): name for name in record}
    known = {"context": _CONTEXTS, "question": _QUESTIONS, "answers": _ANSWERS, "identifier": _IDENTIFIERS}
    found = {key: next((by_name[name] for name in wanted if name in by_name), None) for key, wanted in known.items()}
    if missing := [key for key in ("context", "question", "answers") if found[key] is None]:
        raise DataError(
            f"{file} has no field for {' and '.join(missing)} by its name ({', '.join(known[missing[0]])}); it has "
            f"{', '.join(record)}"
        )
    return LabelledCorpus(questions(source, **{**names, **found}), found)


def _labelled(
    source: Path, text: str, label: str | Sequence[str], problem: Problem, notes: tuple[str, ...] = ()
) -> LabelledCorpus:
    corpus = labelled(source, texts={TEXT: text}, fields={LABEL: label}, labels={LABEL: problem})
    written = label if isinstance(label, str) else list(label)
    return LabelledCorpus(corpus, {"text": text, "label": written, "problem": problem}, notes)


def _label(file: Path, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | list[str]:
    """Returns the field that holds the label, by its name or by its values, or the fields that stand for a class."""
    by_name = {name.lower(): name for name in names}
    if found := next((by_name[name] for name in (*_LABELS, *_NUMBERS) if name in by_name), None):
        return found
    others = [name for name in names if name.lower() not in (*_TEXTS, *_IDENTIFIERS)]
    flags = [name for name in others if _is_flag([record[name] for record in records])]
    if len(flags) > 1:
        return flags
    different = {name: len({str(record[name]) for record in records}) for name in others}
    repeated = [name for name, count in different.items() if 2 <= count <= len(records) // 2]
    if repeated:
        return min(repeated, key=lambda name: different[name])
    numbers = [name for name in others if all(_is_number(record[name]) for record in records)]
    if numbers:
        return numbers[0]
    raise DataError(
        f"{file} has no field that looks like a label, with values that come again or numbers; it has "
        f"{', '.join(names)}"
    )


def _problem(values: Sequence[Any]) -> Problem:
    if any(isinstance(value, list) or (isinstance(value, str) and _parts(value) is not None) for value in values):
        return "multi_label"
    numbers = [float(value) for value in values if _is_number(value)]
    if 2 * len(numbers) > len(values):
        is_whole = all(number.is_integer() for number in numbers)
        return "single_label" if is_whole and len(set(numbers)) <= _MANY_NUMBERS else "regression"
    return "single_label"


def _parts(value: str) -> list[str] | None:
    """Returns the labels of a text that holds several, or None."""
    if ";" not in value and not value.lstrip().startswith("["):
        return None
    try:
        found = read_label(value, "multi_label")
    except LabelError:
        return None
    return found if isinstance(found, list) else None


def _is_number(value: Any) -> bool:
    try:
        read_label(value, "regression")
    except LabelError:
        return False
    return not isinstance(value, bool)


def _is_flag(values: Sequence[Any]) -> bool:
    try:
        return len({is_set(value) for value in values}) == 2
    except LabelError:
        return False


def _size(records: Sequence[Mapping[str, Any]], name: str) -> int:
    """Returns how many characters of text a field has, 0 where it holds something else."""
    try:
        return sum(len(joined_text(record[name])) for record in records)
    except TypeError:
        return 0


def _lists(file: Path, records: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Returns the names of the fields with the words and with their labels."""
    lists = {name: [_listed(record.get(name)) for record in records] for name in records[0]}
    found = {name: values for name, values in lists.items() if all(value is not None for value in values)}
    words = next((name for name in _WORDS if name in found), None)
    labels = next((name for name in _TAGS if name in found and name != words), None)
    if words is None or labels is None:
        lengths = {name: [len(value or ()) for value in values] for name, values in found.items()}
        alike = [name for name in found if list(lengths.values()).count(lengths[name]) > 1]
        # Labels come again, words do so less.
        alike.sort(key=lambda name: len({str(each) for value in found[name] for each in value or ()}))
        if len(alike) < 2:
            fields = ", ".join(f"{name} ({type(value).__name__})" for name, value in records[0].items())
            raise DataError(f"{file} has no two lists of the same lengths, words and their labels; it has {fields}")
        labels, words = alike[0], alike[-1]
    return words, labels


def _listed(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):
        return _parts(value)
    return value if isinstance(value, list) else None


def _columns(file: Path) -> tuple[int, int]:
    """Returns the numbers of the columns with the words and with their labels."""
    cells = [line.split("\t") if "\t" in line else line.split() for line in islice(_lines(file), _RECORDS)]
    count = min(map(len, cells), default=0)
    if count < 2:
        raise DataError(f"{file} holds neither records nor columns of words and labels, a word a line")
    columns = [[line[column] for line in cells] for column in range(count)]
    words = next(
        (
            number
            for number, column in enumerate(columns[:-1], start=1)
            if 2 * sum(cell.isnumeric() for cell in column) < len(column) and len(set(column)) > 1
        ),
        1,
    )
    return words, -1


def _lines(file: Path) -> Iterator[str]:
    """Yields the lines of a file in columns that hold a word."""
    for content in islice(contents(file, DocumentReader([file]), Reading((), None, "text"), Quarantine(1)), 1):
        for line in lines_of(content.name, content.text):
            if line.strip() and not line.startswith(BOUNDARIES):
                yield line.rstrip("\r")
