"""WikiHop and MedHop (QAngaroo, Welbl et al. 2018): a query about many documents, answered by one of the candidates.

Their files are JSON arrays of {id, query, answer, candidates, supports}, train and dev, each also with all candidates
masked (train.masked.json); they are read as they are unpacked, or in their .zip.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from data_pipeline.errors import DataError
from data_pipeline.sources.choices import read_choices, read_text
from data_pipeline.sources.corpora import Corpus, NamedSplits, RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading, contents, field_of
from data_pipeline.sources.text import files_below

Benchmark = Literal["wikihop", "medhop"]
"""Which of both."""
WIKIHOP = "wikihop"
QUERY, CANDIDATES, SUPPORTS = "query", "candidates", "supports"
IDENTIFIER, ANSWER, MENTIONS = "id", "answer", "mentions"


def wikihop(
    source: Path,
    *,
    normalized: Callable[[str], str],
    benchmark: Benchmark | None = None,
    masked: bool = False,
    encoding: str | None = None,
) -> Corpus:
    """Returns queries with the texts QUERY, CANDIDATES and SUPPORTS, of which the last two have a candidate or a
    document a line.

    Fields are IDENTIFIER, LABEL (the number of the right candidate, 0 the first), QUERY and CANDIDATES as in the file,
    and MENTIONS: how often each candidate stands in the documents, whatever its case. Documents without text are left
    out. Splits are told as by `labelled`; dev is validation.

    Args:
        source: one file, or a folder or .zip of files.
        normalized: rewrites every text, on one line.
        benchmark: which of both is read where the source has both; None: it has one.
        masked: whether the files are read in which candidates are masked, or the others.
        encoding: of files that are not UTF-8.

    Raises:
        DataError: there are no such files, or those of both benchmarks though none is named.
    """
    files = files_below(source, recipe=WIKIHOP, expects="files of QAngaroo, such as the folder qangaroo_v1.1/wikihop")
    named = NamedSplits.of(source, files)
    splits = _asked_for(named, source, benchmark, masked)
    reading = Reading((IDENTIFIER, QUERY, ANSWER, CANDIDATES, SUPPORTS), encoding)

    def read(reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        named.name_skipped(quarantine)
        deal = splits.dealer()
        seen: set[tuple[str | None, str]] = set()
        for content in chain.from_iterable(contents(file, reader, reading, quarantine) for file in splits.files):
            if content.name not in splits.names:
                continue
            if content.form == "text":
                raise DataError(f"{content.name} is text, but the queries of QAngaroo are a JSON array of records")
            for record in content.records:
                try:
                    texts, fields = _read(record.load(), normalized)
                    identifier = splits.names[content.name], fields[IDENTIFIER]
                    if identifier in seen:
                        raise ValueError(f"another record has its id {fields[IDENTIFIER]}")
                except (ValueError, TypeError) as error:
                    quarantine.add(record.name, str(error))
                else:
                    seen.add(identifier)
                    yield RawExample(texts, fields, deal(content.name))

    settings = {"benchmark": benchmark, "masked": masked, **reading.settings}
    words = (QUERY, CANDIDATES, SUPPORTS)
    return Corpus(WIKIHOP, settings, source, splits.files, read, lambda: splits.rule, words=words)


def _asked_for(named: NamedSplits, source: Path, benchmark: Benchmark | None, masked: bool) -> NamedSplits:
    """Returns the files that are asked for alone; where names tell of splits, those with such names."""
    parts = {
        name: Path(name).relative_to(source).parts or (source.name,)
        for name in named.names
        if not named.is_skipped(name)
    }
    kept = [name for name, each in parts.items() if ("masked" in _words(each[-1])) == masked]
    if not kept:
        raise DataError(
            f"source {source} holds no files of QAngaroo whose candidates are {'' if masked else 'not '}masked; with "
            f"data.masked={str(not masked).lower()} the others are read"
        )
    told = {name: _benchmark_named(parts[name]) for name in kept}
    if len(known := set(told.values()) - {None}) > 1 and benchmark is None:
        raise DataError(f"source {source} holds wikihop and medhop: say with data.benchmark which is to be read")
    if benchmark is not None and known:
        kept = [name for name in kept if told[name] == benchmark]
        if not kept:
            raise DataError(f"source {source} holds no files of {benchmark}")
    files = [file for file in named.files if any(f"{name}/".startswith(f"{file}/") for name in kept)]
    return NamedSplits({name: named.names[name] for name in kept}, files)


def _benchmark_named(parts: tuple[str, ...]) -> str | None:
    """Returns the benchmark that the innermost of these names tells of."""
    words = [word for part in parts for word in _words(part)]
    return next((word for word in reversed(words) if word in get_args(Benchmark)), None)


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z]+", name.lower())


def _read(record: Mapping[str, Any], normalized: Callable[[str], str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the texts and the fields of a record.

    Raises:
        ValueError, TypeError: something is missing or is no text, or the answer is none of the candidates.
    """
    query, answer = (read_text(record, name, name) for name in (QUERY, ANSWER))
    candidates = read_choices(field_of(record, CANDIDATES), "candidate")
    if twice := next((each for place, each in enumerate(candidates) if each in candidates[:place]), None):
        raise ValueError(f"the candidate {twice[:100]!r} stands twice")
    if answer not in candidates:
        raise ValueError(f"the answer {answer[:100]!r} is none of its {len(candidates)} candidates")
    given = field_of(record, SUPPORTS)
    if isinstance(given, list):
        given = [each for each in given if each != ""]
    supports = read_choices(given, "support", least=1)
    texts = {
        QUERY: normalized(query),
        CANDIDATES: "\n".join(map(normalized, candidates)),
        SUPPORTS: "\n".join(map(normalized, supports)),
    }
    documents = texts[SUPPORTS].lower()
    return texts, {
        IDENTIFIER: str(field_of(record, IDENTIFIER)),
        LABEL: candidates.index(answer),
        QUERY: query,
        CANDIDATES: candidates,
        MENTIONS: [_mentions(normalized(each).lower(), documents) for each in candidates],
    }


def _mentions(candidate: str, documents: str) -> int:
    """Returns how often a candidate stands in documents, not as a part of a longer word."""
    return len(re.findall(rf"(?<!\w){re.escape(candidate)}(?!\w)", documents))
