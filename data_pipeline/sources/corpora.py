"""What preparation asks of a corpus: raw examples in a fixed order, each with its texts, its fields and its split."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.sampling.order import sample_at
from data_pipeline.sources.files import DocumentReader, names_inside
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")
TEXT = "text"
"""The name of the text of examples that have only one."""
HELD_OUT = 20
"""Of so many examples one is for validation and one for test, where nothing else is asked for."""
DRAWN_BY_NUMBER = "of every {} documents one is for validation and one for test, drawn by their number"
GIVEN_BY_NAMES = "by the names of the files and folders: train, validation (or val, valid, dev, development), test"
_SPLIT_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev", "development"), "validation"
)


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
    split_rule: Callable[[], str] = lambda: DRAWN_BY_NUMBER.format(HELD_OUT)
    """Tells in words how examples come to their split; called after they were read."""
    words: tuple[str, ...] = ()
    """Texts that are words, one a line: how many token ids each has is kept in the field `pieces_field`."""
    spans: tuple[str, ...] = ()
    """Texts of which pieces are marked: where each begins and ends, in characters, stands in the field `spans_field`;
    of texts that are words, behind the number of its word. Preparation puts its first and its last token there."""
    classes: tuple[str, ...] = ()
    """Fields that hold a class, or a list of classes, whose names are counted."""
    passes: int = 1
    """How often preparation reads the files."""
    tokenizer: Callable[[DocumentReader], Tokenizer] | None = None
    """Makes the tokenizer of a corpus that brings its own; None: one has to be chosen."""
    begin: ReadExamples | None = None
    """Yields what `read` does until the first example, where that is cheaper."""

    def first(self, *, damaged_allowed: int) -> RawExample:
        """Reads up to the first example, or what is damaged before it, as preparation does.

        Raises:
            DataError: preparation would stop there.
        """
        quarantine = Quarantine(damaged_allowed)
        found = next((self.begin or self.read)(DocumentReader(self.files), quarantine), None)
        if found is None:
            raise self.nothing(quarantine)
        return found

    def nothing(self, quarantine: Quarantine) -> DataError:
        """Returns the refusal of a corpus without text, with the first of what was left out or damaged."""
        found = [*quarantine.left_out.items(), *quarantine.items()]
        reasons = "".join(f"; {name}: {reason}" for name, reason in found[:1])
        return DataError(f"source {self.source} holds no text: nothing to prepare{reasons}")

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        return f"{self.name} ({settings})" if settings else self.name


def pieces_field(text: str) -> str:
    """Returns the name of the field that tells how many token ids each word of a text has."""
    return f"{text}_pieces"


def spans_field(text: str) -> str:
    """Returns the name of the field that tells where the marked pieces of a text are."""
    return f"{text}_spans"


def split_of(number: int, held_out: int = HELD_OUT) -> str:
    """Returns the split of the example with this number: of every `held_out`, one is for validation, one for test."""
    first = number - number % held_out
    for place, split in enumerate(("validation", "test")):
        if number == first + sample_at(first + place, epoch_size=held_out, seed=0):
            return split
    return "train"


@dataclass(frozen=True)
class NamedSplits:
    """Splits as the names of files, also of those inside a .zip, and of their folders tell them."""

    names: Mapping[str, str | None]
    """The split of every name that `contents` gives; None where it tells none."""
    files: list[Path]
    """Those that are read: all, or where names tell of splits those with such names."""
    held_out: int = HELD_OUT
    """Of so many examples one is drawn for each split that is drawn."""

    @classmethod
    def of(
        cls, source: Path, files: list[Path], *, held_out: int = HELD_OUT, except_below: str | None = None
    ) -> "NamedSplits":
        """Looks at the names of files below `source`, or of `source` itself.

        Args:
            source: what was named.
            files: all that it holds.
            held_out: as the field.
            except_below: names below a folder that is called so tell of no splits.
        """

        def told(name: str) -> str | None:
            parts = Path(name).relative_to(source).parts
            return _split_named(parts[: parts.index(except_below)] if except_below in parts else parts)

        inside = {file: names_inside(file) if file.suffix.lower() == ".zip" else [str(file)] for file in files}
        names = {name: told(name) for each in inside.values() for name in each}
        if any(names.values()):
            files = [file for file in files if any(names[name] for name in inside[file])]
        return cls(names, files, held_out)

    def __bool__(self) -> bool:
        return bool(self.told)

    @cached_property
    def told(self) -> set[str]:
        """The splits that names tell of."""
        return {split for split in self.names.values() if split is not None}

    @property
    def missing(self) -> list[str]:
        """Splits for evaluation that no name tells of though names tell of others; drawn from training examples."""
        return [split for split in SPLITS[1:] if self and split not in self.told]

    @property
    def rule(self) -> str:
        """Tells in words how examples come to their split."""
        rule = GIVEN_BY_NAMES if self else DRAWN_BY_NUMBER.format(self.held_out)
        if self.missing:
            drawn = " and ".join(f"one is for {split}" for split in self.missing)
            rule += f"; of every {self.held_out} for training {drawn}"
        return rule

    def dealer(self) -> Callable[[str], str | None]:
        """Returns what tells, called for one example after the other with the name of its file, the split of each."""
        numbers = count()

        def deal(name: str) -> str | None:
            split = self.names.get(name)
            if split == "train" and self.missing:
                drawn = split_of(next(numbers), self.held_out)
                return drawn if drawn in self.missing else split
            return split

        return deal

    def is_skipped(self, name: str) -> bool:
        """Returns whether a name tells of no split though others do."""
        return bool(self) and self.names.get(name) is None

    def name_skipped(self, quarantine: Quarantine) -> None:
        """Names what is skipped."""
        for name in filter(self.is_skipped, self.names):
            quarantine.leave_out(name, "its name tells of no split, as those of other files do")


def _split_named(parts: tuple[str, ...]) -> str | None:
    """Returns the split that the innermost of these names tells of."""
    for part in reversed(parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_NAMES:
                return _SPLIT_NAMES[word]
    return None
