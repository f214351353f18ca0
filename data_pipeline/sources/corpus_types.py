"""What preparation asks of a corpus: samples in a fixed order, each of one text or of several that stay apart."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine

DOCUMENTS = "documents"
"""Kind of samples that are one text each."""
SUMMARIES = "summaries"
"""Kind of samples whose texts are an identifier, a query (may be empty), a document, and summaries of it."""
DRAWN = "of every 20 documents one is held out for validation and one for test, drawn by their number"


@dataclass(frozen=True)
class Sample:
    """What belongs together."""

    texts: tuple[str, ...]
    """Stand in one member of a shard, with the end token between them."""
    split: str | None = None
    """"train", "validation" or "test"; None: drawn by the sample's number."""


@dataclass(frozen=True)
class Corpus:
    """Files, and how their samples are read."""

    source: Path
    files: list[Path]
    """In a fixed order."""
    read: Callable[[DocumentReader, Quarantine], Iterator[Sample]]
    """Gives the samples in a fixed order; what is damaged goes to the quarantine."""
    field: str
    """Where, or in which layout, a file keeps its texts."""
    kind: str = DOCUMENTS
    """What the texts of a sample are: DOCUMENTS or SUMMARIES."""
    split_rule: str = DRAWN
    """In words: how samples come to their split."""
