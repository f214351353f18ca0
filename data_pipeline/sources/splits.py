"""Collect a corpus into one file and cut it into train, validation and test.

The first 90 percent are for training, the next 5 for validation, the last 5 for test.
At 100,000,000 bytes that is the published 90M/5M/5M split of enwik8 and text8 (spec 3.1).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.sources.files import Document

SPLITS = ("train", "validation", "test")
SEPARATOR = b"\0"
"""Stands between two documents; text files hold none."""


@dataclass(frozen=True)
class CollectedText:
    """All documents, one after the other, in the file `path`."""

    path: Path
    size: int
    sha256: str
    symbols: bytes
    """The bytes that occur, in increasing order."""
    document_ends: list[int]
    """Where each document ends, its separator included."""


def collect(documents: Iterator[Document], path: Path, *, limit: int | None) -> CollectedText:
    """Write the documents to `path`, `limit` bytes at most, in bounded memory, and describe what was written."""
    digest = hashlib.sha256()
    occurs = np.zeros(256, dtype=bool)
    ends: list[int] = []
    size = 0
    with path.open("wb") as file:

        def write(chunk: bytes) -> None:
            nonlocal size
            if limit is not None:
                chunk = chunk[: limit - size]
            file.write(chunk)
            digest.update(chunk)
            occurs[np.frombuffer(chunk, dtype=np.uint8)] = True
            size += len(chunk)

        for document in documents:
            if ends:
                write(SEPARATOR)
                ends[-1] = size
            for chunk in document:
                write(chunk)
                if size == limit:
                    break
            ends.append(size)
            if size == limit:
                break
    return CollectedText(path, size, digest.hexdigest(), bytes(np.flatnonzero(occurs).tolist()), ends)


def split_ranges(size: int, document_ends: list[int]) -> dict[str, range]:
    """Return which bytes belong to which split.

    A cut is moved to the nearest end of a document when that is at most 2 percent of the text away, so that documents
    are held out whole where there are many; otherwise, and always in a single file, it falls inside one.
    """
    cuts = [0, *(_cut(size * percent // 100, size, document_ends) for percent in (90, 95)), size]
    return {split: range(start, stop) for split, start, stop in zip(SPLITS, cuts[:-1], cuts[1:], strict=True)}


def _cut(mark: int, size: int, document_ends: list[int]) -> int:
    nearest = min(document_ends, key=lambda end: abs(end - mark), default=mark)
    return nearest if abs(nearest - mark) <= size * 2 // 100 else mark
