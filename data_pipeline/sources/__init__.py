"""One file per corpus: which files it is made of and how its documents are read. Nothing else knows its format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.sources.files import Document, DocumentReader
from data_pipeline.sources.quarantine import Quarantine


@dataclass(frozen=True)
class Source:
    """How one corpus is read."""

    name: str
    version: int
    """Raised whenever the same input would give other tokens than before."""
    find_files: Callable[[Path | None], list[Path]]
    """The files of the corpus in a fixed order, found without reading them; DataError when there are none."""
    read: Callable[[list[Path], DocumentReader, Quarantine], Iterator[Document]]
    """The documents of these files in training order, the text for evaluation last; what is left out is named."""
    symbols: bytes | None
    """The vocabulary's bytes; None: the bytes that occur."""
    published_bytes: int | None = None
    """The size of the published corpus: more text than this is skipped, and at this size the split is the published
    one."""
