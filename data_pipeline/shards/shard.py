"""One shard: a WebDataset tar of examples, and beside it an index as a NumPy array.

An example is the members `KEY.json` (its fields; absent where it has none) and `KEY.NAME.npy` (token ids by name), one
behind the other; KEY is its number in the corpus. The index of a shard is read only while the shard is in use, so its
memory does not grow with the data set. The same examples always give the same bytes.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.staging import write_file

MEMBER_TYPE = np.dtype(
    [("key", "<i8"), ("name", "<i8"), ("offset", "<i8"), ("size", "<i8"), ("tokens", "<i8"), ("checksum", "<u8")]
)
"""One row of an index per member of the tar: the example's key; which of `ShardRecord.names` it is; where its content
lies, in bytes; its tokens; the first 64 bits of the content's SHA-256."""
FIELDS = "json"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Example:
    """What belongs together."""

    key: int
    """The number of the example in its corpus."""
    fields: dict[str, Any]
    tokens: dict[str, np.ndarray]
    """Token ids (1-D) by name."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard, as the manifest knows it."""

    name: str
    """`train-000003`: the files are NAME.tar and NAME.index.npy."""
    size: int
    """Bytes of the tar."""
    examples: int
    tokens: dict[str, int]
    """Token ids of all examples together, by name."""
    index_size: int
    index_sha256: str
    text_sha256: str
    """Of the examples before they were tokenised, so that the same text is known again."""

    @property
    def shard_file(self) -> str:
        return f"{self.name}.tar"

    @property
    def index_file(self) -> str:
        return f"{self.name}.index.npy"

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers in the index's column `name` stand for."""
        return (FIELDS, *self.tokens)


@dataclass
class ShardIndex:
    """Where the members of every example lie."""

    members: np.ndarray
    """1-D MEMBER_TYPE; the members of an example follow each other."""
    names: tuple[str, ...]
    _table: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        keys = self.members["key"]
        self.starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
        """Which member each example begins with, and one more."""
        ordinals = np.repeat(np.arange(len(self)), np.diff(self.starts))
        self._table = np.full((len(self.names), len(self)), -1, dtype=np.int64)
        self._table[self.members["name"], ordinals] = np.arange(len(self.members))
        self._lengths: dict[str, np.ndarray] = {}
        self._ends: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.starts) - 1

    def member(self, example: int, name: str) -> int | None:
        """Returns which member holds that part of an example, None where it has no such part."""
        if name not in self.names:
            return None
        found = int(self._table[self.names.index(name), example])
        return None if found < 0 else found

    def lengths(self, name: str) -> np.ndarray:
        """Returns how many token ids of that name every example has (1-D int64)."""
        if name not in self._lengths:
            lengths = np.zeros(len(self), dtype=np.int64)
            if name in self.names:
                members = self._table[self.names.index(name)]
                lengths[members >= 0] = self.members["tokens"][members[members >= 0]]
            self._lengths[name] = lengths
        return self._lengths[name]

    def ends(self, name: str) -> np.ndarray:
        """Returns where the token ids of each example end, counted from the beginning of the shard (1-D int64)."""
        if name not in self._ends:
            self._ends[name] = np.cumsum(self.lengths(name))
        return self._ends[name]

    @cached_property
    def keys(self) -> np.ndarray:
        """The key of every example (1-D int64)."""
        return self.members["key"][self.starts[:-1]]


def key_name(key: int) -> str:
    """Returns the WebDataset key of an example."""
    return f"{key:09d}"


def write_shard(directory: Path, name: str, examples: Iterable[Example], *, text_sha256: str) -> ShardRecord:
    """Writes examples as one shard; afterwards tar and index are on the disk.

    Raises:
        ValueError: the name of some token ids cannot be part of a member's name.
    """
    partial = directory / f"{name}.tar.partial"
    names = {FIELDS: 0}
    tokens: dict[str, int] = {}
    count = 0
    members = []
    with partial.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for example in examples:
                count += 1
                for part, content, length in _parts(example):
                    entry = tarfile.TarInfo(f"{key_name(example.key)}.{part if part == FIELDS else f'{part}.npy'}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
                    offset = file.tell() - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    number = names.setdefault(part, len(names))
                    members.append((example.key, number, offset, len(content), length, checksum(content)))
                    if part != FIELDS:
                        tokens[part] = tokens.get(part, 0) + length
        file.flush()
        os.fsync(file.fileno())
    index = _npy(np.array(members, dtype=MEMBER_TYPE))
    record = ShardRecord(
        name=name,
        size=partial.stat().st_size,
        examples=count,
        tokens=tokens,
        index_size=len(index),
        index_sha256=hashlib.sha256(index).hexdigest(),
        text_sha256=text_sha256,
    )
    partial.rename(directory / record.shard_file)
    write_file(directory / record.index_file, index)
    return record


def _parts(example: Example) -> Iterator[tuple[str, bytes, int]]:
    """Yields name, content and number of tokens of every member."""
    if example.fields:
        yield FIELDS, json.dumps(example.fields, ensure_ascii=False, sort_keys=True).encode(errors="replace"), 0
    for name, ids in example.tokens.items():
        if name == FIELDS or not _NAME.fullmatch(name):
            raise ValueError(f"{name} cannot name token ids: use small letters, digits and underscores")
        yield name, _npy(ids), len(ids)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def parse_index(name: str, content: bytes, record: ShardRecord) -> ShardIndex:
    """Returns the index of a shard; `name` stands in errors.

    Raises:
        DataError: it is not the one that the manifest names.
    """
    if hashlib.sha256(content).hexdigest() != record.index_sha256:
        raise DataError(
            f"index {name} is damaged: its checksum is not the manifest's; restore the file or prepare the data again"
        )
    return ShardIndex(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False), record.names)


def checksum(content: bytes) -> int:
    """Returns the first 64 bits of the SHA-256."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
