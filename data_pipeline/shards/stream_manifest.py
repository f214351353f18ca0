"""manifest.json: what a prepared data set holds, where it came from, and the fingerprint that is its identity."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.staging import write_file

_FORMAT = "longformer-tokens-1"


@dataclass(frozen=True, kw_only=True)
class RecipeRecord:
    """How the data was asked for."""

    name: str
    version: int
    limit_bytes: int | None

    def __str__(self) -> str:
        limit = "" if self.limit_bytes is None else f", limit_bytes {self.limit_bytes}"
        return f"{self.name} (version {self.version}{limit})"


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """Where the text came from."""

    path: str | None
    files: int
    signature: str
    """SHA-256 over the files' names, sizes and times of change: equal means unchanged."""
    documents: int
    text_bytes: int
    text_sha256: str
    """Of the text that was tokenised: uncompressed, cleaned, documents joined, cut at the limit."""


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """What one split consists of."""

    tokens: int
    samples: int
    """Members of the tar shards."""
    shards: dict[str, int]
    """Name and size in bytes of every shard."""
    index_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of manifest.json."""

    recipe: RecipeRecord
    source: SourceRecord
    split_rule: str
    """In words: how the text was divided."""
    vocabulary: tuple[int, ...]
    """The byte value of every token id."""
    token_type: str
    """uint8 or uint16."""
    splits: dict[str, SplitRecord]

    @property
    def fingerprint(self) -> str:
        """The content address: equal exactly when vocabulary and tokens of all splits are equal."""
        content = {
            "format": _FORMAT,
            "vocabulary": self.vocabulary,
            "token_type": self.token_type,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Write manifest.json, atomically."""
        content = {"format": _FORMAT, "fingerprint": self.fingerprint, **asdict(self)}
        write_file(directory / "manifest.json", json.dumps(content, indent=1).encode() + b"\n")

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read manifest.json.

        Raises:
            DataError: there is no prepared data in `directory`, or the manifest is damaged.
        """
        path = directory / "manifest.json"
        with damage_explained(path):
            content = json.loads(path.read_bytes())
            if content.pop("format") != _FORMAT:
                raise DataError(f"{path} was written by another version: prepare the data again")
            fingerprint = content.pop("fingerprint")
            manifest = cls(
                recipe=RecipeRecord(**content.pop("recipe")),
                source=SourceRecord(**content.pop("source")),
                splits={name: SplitRecord(**split) for name, split in content.pop("splits").items()},
                vocabulary=tuple(content.pop("vocabulary")),
                **content,
            )
        check_fingerprint(path, manifest.fingerprint, written=fingerprint)
        return manifest


def is_prepared(output: Path) -> bool:
    """Return whether `output` holds prepared data; False where there is nothing yet.

    Raises:
        DataError: it holds something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / "manifest.json").is_file():
        raise DataError(f"{output} holds something else than prepared data: choose another output directory")
    return True


@contextmanager
def damage_explained(path: Path | str) -> Iterator[None]:
    """Turn what reading and taking apart the manifest at `path` raises into one sentence, a DataError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{str(path).removesuffix('/manifest.json')} holds no prepared data (no manifest.json): "
            "make it with longformer data prepare"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged: prepare the data again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def check_fingerprint(path: Path | str, found: str, *, written: str) -> None:
    """Raise DataError when the manifest's content has another fingerprint than the one written in it."""
    if found != written:
        raise DataError(f"{path} is damaged (its fingerprint does not fit its content): prepare the data again")
