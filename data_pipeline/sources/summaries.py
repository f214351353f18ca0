"""Documents with summaries, as they are published: arXiv and PubMed, SumPubMed, QMSum, SQuALITY, any JSON lines.

A layout makes samples of one line of JSON; a line it cannot read goes to the quarantine, whole.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import (
    Corpus,
    NamedSplits,
    RawExample,
)
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading, contents, field_of, joined_text
from data_pipeline.sources.text import files_below

SUMMARIES = "summaries"
DOCUMENT, QUERY = "document", "query"
"""Names of texts of an example; the query is absent where nothing is asked."""
SUMMARY = "summary_"
"""Begins the names of an example's summaries: summary_0, summary_1 ..."""
IDENTIFIER = "id"
"""The field with the document's identifier."""


@dataclass(frozen=True)
class Summarized:
    """A document and what people have written about it."""

    identifier: str
    document: str
    summaries: tuple[str, ...]
    query: str = ""
    """What the summaries are to tell; empty = what matters most."""


Record = Mapping[str, Any]
Layout = Callable[[str, Record], Iterator[Summarized]]
"""Called with the name of a line and its content; KeyError, TypeError or ValueError where that is something else."""


def summaries(source: Path, layout: str, *, encoding: str | None = None) -> Corpus:
    """Returns documents with summaries as preparation reads them.

    Args:
        source: a file of records (`records.py`), plain or packed, or a folder of them. In a folder or .zip the names
            train, val, valid, validation, dev, development and test say to which split a file, or what lies in a
            subfolder, belongs; if there are such names, other files are skipped, and what they do not tell of,
            validation or test, is one of every 20 training records.
        layout: one of LAYOUTS, or the names of fields: `document=text,summary=abstract`, and, where there are
            such fields, `query=...` and `identifier=...`.
        encoding: of files that are not UTF-8.

    Raises:
        DataError: there are no files, or the layout is unknown.
    """
    read_record, fields = _layout_named(layout)
    files = files_below(source, recipe=SUMMARIES, expects="a file or folder of JSON lines, JSON arrays, CSV or Parquet")
    splits = NamedSplits.of(source, files)
    reading = Reading(fields, encoding)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        splits.name_skipped(quarantine)
        deal = splits.dealer()
        for file in splits.files:
            for content in contents(file, reader, reading, quarantine):
                if splits.is_skipped(content.name):
                    continue
                if content.form == "text":
                    raise DataError(
                        f"{content.name} is text, but documents with summaries are records: JSON lines, a JSON array, "
                        "CSV or Parquet"
                    )
                for record in content.records:
                    try:
                        line = f"{file.name}:{record.name.rpartition(':')[2]}"
                        found = [_raw(each) for each in read_record(line, record.load())]
                    except (ValueError, KeyError, TypeError, AttributeError) as error:
                        what = f"it has no {error}" if isinstance(error, KeyError) else error
                        reason = f"the record is not of the layout {layout} ({what})"
                        quarantine.add(record.name, reason)
                    else:
                        split = deal(content.name)
                        yield from (RawExample(each.texts, each.fields, split) for each in found)

    return Corpus(SUMMARIES, {"layout": layout, **reading.settings}, source, splits.files, read, lambda: splits.rule)


def _raw(example: Summarized) -> RawExample:
    if not example.document.strip():
        raise ValueError("the document is empty")
    if not example.summaries or not all(map(str.strip, example.summaries)):
        raise ValueError("a summary is missing or empty")
    asked = {QUERY: example.query} if example.query else {}
    texts = {DOCUMENT: example.document} | {f"{SUMMARY}{number}": each for number, each in enumerate(example.summaries)}
    return RawExample(asked | texts, {IDENTIFIER: example.identifier})


def _scientific_papers(name: str, record: Record) -> Iterator[Summarized]:
    """Reads a line of the arXiv and PubMed sets (Cohan et al. 2018): one sentence a string, in <S> ... </S> in the
    abstract. Sentences stay apart by line ends, which summary-level ROUGE needs."""
    sentences = (line.removeprefix("<S>").removesuffix("</S>").strip() for line in record["abstract_text"])
    yield Summarized(joined_text(record["article_id"]), joined_text(record["article_text"]), ("\n".join(sentences),))


def _qmsum(name: str, record: Record) -> Iterator[Summarized]:
    """Reads a meeting of QMSum (Zhong et al. 2021): one sample for every query, general ones first."""
    meeting = joined_text(record.get("meeting_id", name))
    turns = [f"{turn['speaker']}: {turn['content']}" for turn in record["meeting_transcripts"]]
    queries = [*record["general_query_list"], *record["specific_query_list"]]
    for number, asked in enumerate(queries, start=1):
        query, answer = joined_text(asked["query"]), joined_text(asked["answer"])
        yield Summarized(f"{meeting}-{number}", "\n".join(turns), (answer,), query)


def _squality(name: str, record: Record) -> Iterator[Summarized]:
    """Reads a story of SQuALITY (Wang et al. 2022): one sample for every question, with several summaries."""
    story, document = joined_text(record["metadata"]["passage_id"]), joined_text(record["document"])
    for question in record["questions"]:
        answers = tuple(joined_text(response["response_text"]) for response in question["responses"])
        query = joined_text(question["question_text"])
        yield Summarized(f"{story}-{question['question_number']}", document, answers, query)


def _named_fields(*, document: str, summary: str, query: str | None = None, identifier: str | None = None) -> Layout:
    """Returns the layout of lines with these fields; several summaries may stand in a list."""

    def read(name: str, record: Record) -> Iterator[Summarized]:
        written = field_of(record, summary)
        yield Summarized(
            identifier=str(field_of(record, identifier)) if identifier else name,
            document=joined_text(field_of(record, document)),
            summaries=tuple(map(joined_text, written if isinstance(written, list) else [written])),
            query=joined_text(field_of(record, query)) if query else "",
        )

    return read


LAYOUTS: dict[str, Layout] = {
    "scientific_papers": _scientific_papers,
    "sumpubmed": _named_fields(document="article", summary="abstract", identifier="id"),
    "qmsum": _qmsum,
    "squality": _squality,
}


def _layout_named(name: str) -> tuple[Layout, tuple[str, ...]]:
    """Returns a layout, and the fields that it names; of the published ones none, which are lines of JSON."""
    if name in LAYOUTS:
        return LAYOUTS[name], ()
    try:
        roles = dict(part.split("=") for part in name.split(","))
        return _named_fields(**roles), tuple(roles.values())
    except (TypeError, ValueError):
        raise DataError(
            f"{name} is no layout of summaries: choose one of {', '.join(LAYOUTS)}, or name the fields: "
            "document=NAME,summary=NAME and, where there are such, query=NAME,identifier=NAME"
        ) from None
