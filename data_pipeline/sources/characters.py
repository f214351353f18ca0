"""Corpora of characters: text as one stream of bytes, cut into train, validation and test and into equal examples.

The first 90 percent are for training, the next 5 for validation, the last 5 for test. At 100,000,000 bytes that is the
published 90M/5M/5M split of enwik8 and text8 (semantics.md 3.1). The source is read twice: once to know its size, the
ends of its documents and the bytes that occur, once to cut it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sources import Source, enwik8, python_library, text, text8
from data_pipeline.sources.corpora import SPLITS, TEXT, Corpus, RawExample
from data_pipeline.sources.files import Document, DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.byte import Vocabulary

_SOURCES = {module.SOURCE.name: module.SOURCE for module in (enwik8, text8, text, python_library)}
RECIPES = tuple(_SOURCES)
EXAMPLE_BYTES = 65_536
SEPARATOR = b"\0"
"""Stands between two documents; text files hold none."""
_SMALLEST_TEXT = 100


def characters(recipe: str, source: Path | None, *, limit_bytes: int | None = None) -> Corpus:
    """Returns a corpus of characters, which brings its own tokenizer.

    Args:
        recipe: one of RECIPES.
        source: the file or folder to read; None for python_library.
        limit_bytes: take only this many bytes from the beginning of the (uncompressed, cleaned) text.

    Raises:
        DataError: unknown recipe, or the source is missing or empty.
    """
    if limit_bytes is not None and limit_bytes < _SMALLEST_TEXT:
        raise DataError(f"limit_bytes is {limit_bytes}: at least {_SMALLEST_TEXT} are needed to hold out some text")
    if recipe not in _SOURCES:
        near = get_close_matches(recipe, RECIPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(RECIPES)}"
        raise DataError(f"{recipe} is not a known recipe: {hint}")
    chosen = _SOURCES[recipe]
    stream = _Stream(chosen, source, chosen.find_files(source), limit_bytes)
    return Corpus(
        name=recipe,
        settings={"version": chosen.version, "limit_bytes": limit_bytes},
        source=source,
        files=stream.files,
        read=stream.examples,
        split_rule=stream.split_rule,
        passes=2,
        tokenizer=stream.vocabulary,
        begin=stream.beginning,
    )


class JoinedText:
    """Iterates once over the bytes of documents, with a separator between them, cut at a limit."""

    def __init__(self, documents: Iterator[Document], limit: int | None) -> None:
        self._documents = documents
        self._limit = limit
        self.size = 0
        """Bytes so far."""
        self.document_ends: list[int] = []
        """Where each document ends, its separator included."""

    def __iter__(self) -> Iterator[bytes]:
        """Yields the bytes in chunks."""
        for document in self._documents:
            if self.document_ends:
                yield self._counted(SEPARATOR)
                self.document_ends[-1] = self.size
            for chunk in document:
                yield self._counted(chunk)
                if self.size == self._limit:
                    break
            self.document_ends.append(self.size)
            if self.size == self._limit:
                return

    def _counted(self, chunk: bytes) -> bytes:
        kept = chunk if self._limit is None else chunk[: self._limit - self.size]
        self.size += len(kept)
        return kept


@dataclass(frozen=True)
class TextSurvey:
    """What the first reading tells of a text."""

    size: int
    sha256: str
    symbols: bytes
    """The bytes that occur, in increasing order."""
    document_ends: list[int]

    @classmethod
    def of(cls, joined: JoinedText) -> "TextSurvey":
        """Reads the text, in bounded memory."""
        digest = hashlib.sha256()
        occurs = np.zeros(256, dtype=bool)
        for chunk in joined:
            digest.update(chunk)
            occurs[np.frombuffer(chunk, dtype=np.uint8)] = True
        return cls(joined.size, digest.hexdigest(), bytes(np.flatnonzero(occurs).tolist()), joined.document_ends)


def split_ranges(size: int, document_ends: list[int]) -> dict[str, range]:
    """Returns which bytes belong to which split.

    A cut is moved to the nearest end of a document when that is at most 2 percent of the text away, so that documents
    are held out whole where there are many; otherwise, and always in a single file, it falls inside one.
    """
    cuts = [0, *(_cut(size * percent // 100, size, document_ends) for percent in (90, 95)), size]
    return {split: range(start, stop) for split, start, stop in zip(SPLITS, cuts[:-1], cuts[1:], strict=True)}


def _cut(mark: int, size: int, document_ends: list[int]) -> int:
    nearest = min(document_ends, key=lambda end: abs(end - mark), default=mark)
    return nearest if abs(nearest - mark) <= size * 2 // 100 else mark


@dataclass(eq=False)
class _Stream:
    """The text of a source as preparation asks for it."""

    chosen: Source
    source: Path | None
    files: list[Path]
    limit_bytes: int | None
    _survey: TextSurvey | None = None

    def vocabulary(self, reader: DocumentReader) -> Vocabulary:
        """Returns the table of the bytes that the recipe knows, or of those that occur."""
        symbols = self._surveyed(reader).symbols
        return Vocabulary(self.chosen.symbols or symbols)

    def examples(self, reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        """Yields EXAMPLE_BYTES at a time; the last example of a split may be shorter."""
        survey = self._surveyed(reader)
        chunks = iter(self._joined(reader, quarantine))
        pending = bytearray()
        for split, span in split_ranges(survey.size, survey.document_ends).items():
            for start in range(span.start, span.stop, EXAMPLE_BYTES):
                size = min(EXAMPLE_BYTES, span.stop - start)
                while len(pending) < size:
                    chunk = next(chunks, None)
                    if chunk is None:
                        raise DataError(f"source {self.source} became shorter while it was read: prepare it again")
                    pending += chunk
                yield RawExample({TEXT: bytes(pending[:size])}, split=split)
                del pending[:size]

    def beginning(self, reader: DocumentReader, quarantine: Quarantine) -> Iterator[RawExample]:
        """Yields the beginning of the text, which need not be of the size of an example."""
        joined, begin = self._joined(reader, quarantine), b""
        for chunk in joined:
            begin += chunk
            if len(begin) >= _SMALLEST_TEXT:
                yield RawExample({TEXT: begin})
                return
        self._check_size(joined.size)

    def split_rule(self) -> str:
        """Returns in words how the text was divided; after it was read."""
        published, size = self.chosen.published_bytes, self._survey.size if self._survey else 0
        if published is None:
            return "first 90, next 5, last 5 percent of the text, cut between documents where one ends nearby"
        if size == published:
            return f"the published split of {self.chosen.name}: 90,000,000 / 5,000,000 / 5,000,000"
        return (
            f"first 90, next 5, last 5 percent of {size:,} bytes: not the published split of {self.chosen.name} "
            "(90,000,000 / 5,000,000 / 5,000,000), so results do not compare with published ones"
        )

    def _joined(self, reader: DocumentReader, quarantine: Quarantine) -> JoinedText:
        limits = [size for size in (self.limit_bytes, self.chosen.published_bytes) if size is not None]
        return JoinedText(self.chosen.read(self.files, reader, quarantine), min(limits, default=None))

    def _surveyed(self, reader: DocumentReader) -> TextSurvey:
        if self._survey is None:
            self._survey = TextSurvey.of(self._joined(reader, Quarantine(0)))
            self._check_size(self._survey.size)
        return self._survey

    def _check_size(self, size: int) -> None:
        if size < _SMALLEST_TEXT:
            raise DataError(
                f"source {self.source} holds only {size} bytes of text: recipe {self.chosen.name} needs at least "
                f"{_SMALLEST_TEXT} to hold out some of them"
            )
