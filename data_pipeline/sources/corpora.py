"""What preparation asks of a corpus: raw examples in a fixed order, each with its texts, its fields and its split."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.sampling.order import sample_at
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")
TEXT = "text"
"""The name of the text of examples that have only one."""
DRAWN_BY_NUMBER = "of every 20 documents one is for validation and one for test, drawn by their number"
GIVEN_BY_NAMES = "by the names of the files and folders: train, validation (or val, valid, dev), test"
_EVERY = 20
_SPLIT_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation", "dev"), "validation")


@dataclass(frozen=True)
class RawExample:
    """What belongs together, before it is tokenised."""

    texts: Mapping[str, str | bytes]
    """Become token ids, each under its name: small letters, digits and underscores."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Everything else, such as identifiers and labels: values that JSON can hold."""
    split: str | None = None
    """One of SPLITS; None: drawn by the example's number."""

    @property
    def characters(self) -> int:
        """How much the example adds to a shard."""
        return sum(map(len, self.texts.values())) + sum(
            len(value) for value in self.fields.values() if isinstance(value, str)
        )


ReadExamples = Callable[[DocumentReader, Quarantine], Iterator[RawExample]]
"""Yields the examples of a corpus in a fixed order; what is damaged goes to the quarantine."""


@dataclass(frozen=True)
class Corpus:
    """Files, and how their examples are read."""

    name: str
    """What the corpus is: the name of a character recipe, or documents, summaries, labelled."""
    settings: Mapping[str, Any]
    """What decides how the files are read, as JSON can hold it: other settings may give other examples."""
    source: Path | None
    """The file or folder that was named; None where the corpus needs none."""
    files: list[Path]
    """In a fixed order."""
    read: ReadExamples
    split_rule: Callable[[], str] = lambda: DRAWN_BY_NUMBER
    """Tells in words how examples come to their split; called after they were read."""
    passes: int = 1
    """How often preparation reads the files."""
    tokenizer: Callable[[DocumentReader], Tokenizer] | None = None
    """Makes the tokenizer of a corpus that brings its own; None: one has to be chosen."""

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        return f"{self.name} ({settings})" if settings else self.name


def split_of(number: int) -> str:
    """Returns the split of the example with this number: of every 20 one is for validation and one for test."""
    first = number - number % _EVERY
    for place, split in enumerate(("validation", "test")):
        if number == first + sample_at(first + place, epoch_size=_EVERY, seed=0):
            return split
    return "train"


def splits_by_name(source: Path, files: list[Path]) -> dict[Path, str]:
    """Returns the files below the folder `source` whose names, or whose folders' names, tell their split."""
    return {file: split for file in files if (split := _split_named(file.relative_to(source).parts))}


def leave_out_others(files: list[Path], splits: Mapping[Path, str], quarantine: Quarantine) -> None:
    """Names the files that are skipped because names of others tell of splits."""
    if splits:
        for file in files:
            if file not in splits:
                quarantine.leave_out(str(file), "its name tells of no split, as those of other files do")


def _split_named(parts: tuple[str, ...]) -> str | None:
    """Returns the split that the innermost of these names tells of."""
    for part in reversed(parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_NAMES:
                return _SPLIT_NAMES[word]
    return None
