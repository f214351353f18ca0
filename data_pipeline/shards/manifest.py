"""manifest.json: what prepared data holds, where it came from, and the fingerprint that is its identity."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.shards.shard import ShardRecord
from data_pipeline.shards.staging import write_file
from data_pipeline.tokenizers.tokenizer import SpecialTokens, TokenizerRecord

FILE = "manifest.json"
QUARANTINE_FILE = "quarantine.jsonl"
"""Stands beside it where something was damaged or left out, and names all of it."""
_FORMAT = "longformer-examples-1"


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """Where the examples came from."""

    name: str
    """The kind of corpus: a character recipe, documents, summaries, labelled."""
    settings: Mapping[str, Any]
    """How the files were read, such as the field of the text."""
    path: str | None
    files: int
    signature: str
    """SHA-256 over the files' names, sizes and times of change: equal means unchanged."""
    examples: int
    empty_examples: int
    """Skipped because they hold no token."""
    damaged_examples: int
    """Skipped and named in quarantine.jsonl."""
    split_rule: str
    """In words: how examples came to their split."""
    left_out_files: int = 0
    """Files that are no part of the data, such as pictures; named in quarantine.jsonl."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The first of their names, and why."""
    classes: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """How many examples of every split have every class, by the name of the field; the classes in their order."""

    @property
    def omissions(self) -> list[str]:
        """A line for each file that was left out, as far as their names are here, and one for what was damaged."""
        lines = [f"left out: {name} ({reason})" for name, reason in self.left_out.items()]
        if self.left_out_files > len(self.left_out):
            lines.append(f"left out: {self.left_out_files - len(self.left_out):,} more, named in {QUARANTINE_FILE}")
        if self.damaged_examples:
            lines.append(f"damaged: {self.damaged_examples:,}, named in {QUARANTINE_FILE}")
        return lines

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        return f"{self.name} ({settings})" if settings else self.name


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of manifest.json."""

    corpus: CorpusRecord
    tokenizer: TokenizerRecord
    splits: dict[str, tuple[ShardRecord, ...]]

    @property
    def fingerprint(self) -> str:
        """The content address: equal exactly when tokenizer, examples and their order in the shards are equal."""
        content = {
            "format": _FORMAT,
            "tokenizer": asdict(self.tokenizer),
            "splits": {
                name: [{**asdict(shard), "text_sha256": None} for shard in shards]
                for name, shards in self.splits.items()
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Writes manifest.json, atomically."""
        content = {"format": _FORMAT, "fingerprint": self.fingerprint, **asdict(self)}
        write_file(directory / FILE, json.dumps(content, indent=1).encode() + b"\n")

    @classmethod
    def parse(cls, name: str, content: bytes) -> "Manifest":
        """Reads the content of the manifest that is called `name` in errors.

        Raises:
            DataError: it is damaged, or was written by another version.
        """
        with _damage_as_sentence(name):
            values = json.loads(content)
            if values.pop("format") != _FORMAT:
                raise DataError(
                    f"{name} was written by another version, whose format is no longer read: delete the directory and "
                    "prepare the data again"
                )
            fingerprint = values.pop("fingerprint")
            tokenizer = values.pop("tokenizer")
            special = tokenizer.pop("special")
            if special is not None:
                special = SpecialTokens(**{**special, "others": tuple(special["others"])})
            manifest = cls(
                corpus=CorpusRecord(**values.pop("corpus")),
                tokenizer=TokenizerRecord(special=special, **tokenizer),
                splits={
                    split: tuple(ShardRecord(**shard) for shard in shards)
                    for split, shards in values.pop("splits").items()
                },
                **values,
            )
        if manifest.fingerprint != fingerprint:
            raise DataError(f"{name} is damaged (its fingerprint does not fit its content): prepare the data again")
        return manifest


def is_prepared(output: Path) -> bool:
    """Returns whether `output` holds prepared data; False where there is nothing yet.

    Raises:
        DataError: it holds something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / FILE).is_file():
        raise DataError(f"{output} holds something else than prepared data: choose another output directory")
    return True


@contextmanager
def _damage_as_sentence(name: str) -> Iterator[None]:
    """Turns what reading a damaged manifest raises into one sentence, a DataError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{name} is damaged: prepare the data again") from None
