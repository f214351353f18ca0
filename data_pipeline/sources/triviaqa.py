"""TriviaQA as published (Joshi et al. 2017): questions in JSON, and the documents of evidence beside them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import TEXT, Corpus, NamedSplits, RawExample, spans_field
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.questions import ANSWERS, CONTEXT, ID, QUESTION
from data_pipeline.sources.records import Reading, contents, field_of, joined_text

TRIVIAQA = "triviaqa"
Domain = Literal["wikipedia", "web"]
_PAGES = {"wikipedia": (("EntityPages", "wikipedia"),), "web": (("EntityPages", "wikipedia"), ("SearchResults", "web"))}
"""Which lists of a question name documents, and in which folder of evidence these are."""


def triviaqa(source: Path, domain: Domain, *, max_words: int) -> Corpus:
    """Returns an example for each document of each question, with the texts and fields of `questions`.

    All places at which an alias of the answer stands are marked, whatever its letters' case and the punctuation between
    its words. The answers are the normalised aliases and the answers of people. The identifier is that of the question,
    which all its documents share; of the web, where each document is judged, `question--file`. The file `dev` is for
    validation, `verified-...-dev` for the test; without it, of every 20 training questions one is. A training document
    without an answer teaches nothing and is left out.

    Args:
        source: the folder with qa and evidence.
        domain: which documents.
        max_words: words of a document that are read, from its beginning; 4,096 in the Longformer paper.

    Raises:
        DataError: a file of questions is missing.
    """
    names = {"train": f"{domain}-train.json", "validation": f"{domain}-dev.json", "test": f"verified-{domain}-dev.json"}
    split_of = {source / "qa" / name: split for split, name in names.items()}
    files = [file for file in split_of if file.is_file()]
    for file, split in split_of.items():
        if split != "test" and file not in files:
            raise DataError(
                f"{file} is missing: data.source should be the folder with qa/{file.name} and evidence, as the archive "
                "of TriviaQA is unpacked"
            )
    splits = NamedSplits({str(file): split_of[file] for file in files}, files)
    evidence = {file for _, folder in _PAGES[domain] for file in (source / "evidence" / folder).rglob("*.txt")}

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        deal = splits.dealer()
        for content in chain.from_iterable(contents(file, reader, Reading(), quarantine) for file in files):
            for name, question in _questions(content.name, content.records):
                split = deal(content.name)
                try:
                    answers, pattern = _answers(field_of(question, "Answer"))
                    documents = _documents(source / "evidence", question, domain)
                    asked = joined_text(field_of(question, "Question"))
                except (ValueError, TypeError) as error:
                    quarantine.add(name, str(error))
                    continue
                for document, document_name in documents:
                    if document not in evidence:
                        quarantine.add(f"{name}, {document_name}", f"{document} is missing")
                        continue
                    context = _beginning(document.read_text(encoding="utf-8", errors="replace"), max_words)
                    spans = [match.span() for match in pattern.finditer(context)]
                    if split == "train" and not spans:
                        continue
                    identifier = question["QuestionId"]
                    fields = {
                        ID: identifier if domain == "wikipedia" else f"{identifier}--{document_name}",
                        QUESTION: asked,
                        CONTEXT: context,
                        ANSWERS: answers,
                        spans_field(TEXT): spans,
                    }
                    yield RawExample({TEXT: context, QUESTION: asked}, fields, split)

    settings = {"domain": domain, "max_words": max_words}
    return Corpus(TRIVIAQA, settings, source, [*files, *sorted(evidence)], read, lambda: splits.rule, spans=(TEXT,))


def _questions(file: str, records: Iterator[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the name and the fields of each question of a file."""
    try:
        questions = field_of(next(records).load(), "Data")
        for question in questions:
            yield f"{file} question {field_of(question, 'QuestionId')}", question
    except (ValueError, TypeError, StopIteration) as error:
        raise DataError(f"{file} is no file of TriviaQA ({error}): fetch it again") from None


def _answers(answer: Mapping[str, Any]) -> tuple[list[str], re.Pattern[str]]:
    """Returns the texts that answer a question, and what matches all of them in a document, the longest first.

    Raises:
        ValueError, TypeError: there are none.
    """
    aliases = [*field_of(answer, "NormalizedAliases"), *answer.get("HumanAnswers", ())]
    found = {words: None for alias in aliases if (words := tuple(re.findall(r"\w+", joined_text(alias))))}
    if not found:
        raise ValueError("it has no answer")
    patterns = sorted((r"[\W_]+".join(map(re.escape, words)) for words in found), key=lambda each: (-len(each), each))
    return aliases, re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)


def _documents(folder: Path, question: Mapping[str, Any], domain: Domain) -> Sequence[tuple[Path, str]]:
    """Returns the documents of a question, each with its name.

    Raises:
        ValueError: a document has no name.
    """
    pages = [(below, page) for field, below in _PAGES[domain] for page in question.get(field) or ()]
    return [(folder / below / field_of(page, "Filename"), page["Filename"]) for below, page in pages]


def _beginning(text: str, words: int) -> str:
    """Returns the first words of a text."""
    for number, word in enumerate(re.finditer(r"\S+", text), start=1):
        if number == words:
            return text[: word.end()]
    return text
