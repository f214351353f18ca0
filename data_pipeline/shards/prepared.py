"""Prepared data as the rest of the system sees it: manifest, tokenizer, and the examples of every split."""

import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO

import numpy as np

from data_pipeline.errors import DataError, MissingFileError
from data_pipeline.shards.manifest import FILE, Manifest
from data_pipeline.shards.remote_storage import open_storage
from data_pipeline.shards.shard import FIELDS, Example, ShardIndex, ShardRecord, checksum, key_name, parse_index
from data_pipeline.shards.storage import Storage
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.byte import Vocabulary
from data_pipeline.tokenizers.subword import TextTokenizer
from data_pipeline.tokenizers.tokenizer import TokenizerRecord, content_sha256


@dataclass(frozen=True)
class PreparedData:
    """What `prepare` has written, in a directory or behind a URL. Opening reads the manifest only."""

    storage: Storage
    manifest: Manifest

    @classmethod
    def open(cls, location: str | os.PathLike[str], storage: Storage | None = None) -> "PreparedData":
        """Opens prepared data at a path or URL; `storage` where its cache or patience are not the usual ones.

        Raises:
            DataError: there is none, it is of another version, or the manifest is damaged.
        """
        location = os.fspath(location)
        storage = storage or open_storage(location)
        try:
            content = storage.read(FILE)
        except MissingFileError:
            raise DataError(
                f"{location} holds no prepared data (no {FILE}): make it with longformer data prepare"
            ) from None
        manifest = Manifest.parse(f"{location}/{FILE}", content)
        return cls(storage.of_version(manifest.fingerprint), manifest)

    @property
    def location(self) -> str:
        """The path or URL."""
        return self.storage.location

    @property
    def fingerprint(self) -> str:
        """The content address of tokenizer and examples (SHA-256, hexadecimal)."""
        return self.manifest.fingerprint

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of subwords.

        Raises:
            DataError: its file is missing or is not the one of the manifest, or the data is of characters.
        """
        if self.manifest.tokenizer.file != TextTokenizer.file_name:
            raise DataError(f"{self.location} was prepared as characters: prepare it with a tokenizer of subwords")
        return TextTokenizer(self._tokenizer_file().decode())

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The table between bytes and token ids.

        Raises:
            DataError: its file is missing or is not the one of the manifest, or the data is of subwords.
        """
        if self.manifest.tokenizer.file != Vocabulary.file_name:
            raise DataError(f"{self.location} was prepared as subwords: prepare it as characters")
        return Vocabulary.parse(self._tokenizer_file(), f"{self.location}/{Vocabulary.file_name}")

    def split(self, name: str, *, open_shards: int = 16, quarantine: Quarantine | None = None) -> "Split":
        """Returns the examples of "train", "validation" or "test".

        Args:
            open_shards: how many shards may be open, and their indexes in memory, at one time.
            quarantine: takes the damaged examples; None: none is allowed.

        Raises:
            ValueError: there is no such split, or `open_shards` is not positive.
            DataError: it is empty, a shard is missing or cut short, or the storage has too little room for the shards.
        """
        if name not in self.manifest.splits:
            raise ValueError(f"no split {name!r}: choose one of {', '.join(self.manifest.splits)}")
        if open_shards < 1:
            raise ValueError(f"open_shards must be at least 1, got {open_shards}")
        shards = self._shards_with_examples(name)
        if not shards:
            raise DataError(f"{self.location} holds no documents for {name}: prepare more than 20 documents")
        self.storage.check(_files_of(shards))
        sizes = sorted((shard.size + shard.index_size for shard in shards), reverse=True)
        # Those of one group of the shuffle while the next is fetched.
        self.storage.check_room(sum(sizes[: 2 * open_shards]))
        return Split(
            self.storage,
            shards,
            name=f"{self.location} ({name})",
            fingerprint=f"{self.fingerprint}/{name}",
            tokenizer=self.manifest.tokenizer,
            open_shards=open_shards,
            quarantine=quarantine or Quarantine(0),
        )

    @property
    def examples(self) -> int:
        """Examples of all splits."""
        return sum(shard.examples for shards in self.manifest.splits.values() for shard in shards)

    def tokens(self, split: str) -> int:
        """Returns how many token ids a split holds, of all names together."""
        return sum(sum(shard.tokens.values()) for shard in self.manifest.splits[split])

    def check_files(self) -> None:
        """Raises DataError where a shard or index is not there with its size; remote files are not looked at."""
        for shards in self.manifest.splits.values():
            self.storage.check(_files_of(shards))

    def find_damage(self) -> list[str]:
        """Reads everything against its checksum; returns one sentence for every damage, none when all is well."""
        damages: list[str] = []
        try:
            self._tokenizer_file()
        except DataError as error:
            damages.append(str(error))
        for name in filter(self._shards_with_examples, self.manifest.splits):
            quarantine = Quarantine(limit=self.examples)
            for record in self._shards_with_examples(name):
                try:
                    split = Split(
                        self.storage, (record,), name, "", self.manifest.tokenizer, open_shards=1, quarantine=quarantine
                    )
                    for _ in split.examples():
                        pass
                except DataError as error:
                    damages.append(str(error))
            damages += [f"{sample} is damaged: {reason}" for sample, reason in quarantine.items()]
        return damages

    def _tokenizer_file(self) -> bytes:
        record = self.manifest.tokenizer
        content = self.storage.read(record.file)
        if content_sha256(content) != record.sha256:
            raise DataError(f"{self.location}/{record.file} is not the tokenizer of the manifest: restore the file")
        return content

    def _shards_with_examples(self, name: str) -> tuple[ShardRecord, ...]:
        """Returns the shards of a split without those whose examples were all empty."""
        return tuple(shard for shard in self.manifest.splits[name] if shard.examples)


def _files_of(shards: tuple[ShardRecord, ...]) -> dict[str, int]:
    sizes = {shard.shard_file: shard.size for shard in shards}
    return sizes | {shard.index_file: shard.index_size for shard in shards}


@dataclass
class _OpenShard:
    file: IO[bytes]
    index: ShardIndex
    verified: bytearray
    """One for every member that agreed with its checksum when it was first read."""


@dataclass
class Split:
    """Read any example of a split; a bounded number of shards is open, none is held in memory."""

    storage: Storage
    shards: tuple[ShardRecord, ...]
    name: str
    """For messages."""
    fingerprint: str
    """Of the prepared data, and which split it is."""
    tokenizer: TokenizerRecord
    open_shards: int
    quarantine: Quarantine
    _open: OrderedDict[int, _OpenShard] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return sum(shard.examples for shard in self.shards)

    def tokens(self, name: str) -> int:
        """Returns how many token ids of that name all examples have together."""
        return sum(shard.tokens.get(name, 0) for shard in self.shards)

    def check_has(self, name: str, otherwise: str) -> None:
        """Raises DataError, with `otherwise` as its end, where no example has token ids of that name."""
        if not any(name in shard.tokens for shard in self.shards):
            raise DataError(f"{self.name} {otherwise}")

    def lengths(self, shard: int, name: str) -> np.ndarray:
        """Returns how many token ids of that name every example of a shard has (1-D int64).

        Raises:
            DataError: the index is damaged, or shard or index cannot be read.
        """
        return self._shard(shard).index.lengths(name)

    def ends(self, shard: int, name: str) -> np.ndarray:
        """Returns where the token ids of each example of a shard end (1-D int64); errors as in `lengths`."""
        return self._shard(shard).index.ends(name)

    def read(self, shard: int, example: int) -> Example | None:
        """Returns an example of a shard, None where it is damaged and now in quarantine.

        Raises:
            DataError: more examples are damaged than the quarantine allows, or the shard cannot be read.
        """
        opened = self._shard(shard)
        index = opened.index
        numbers = range(int(index.starts[example]), int(index.starts[example + 1]))
        # Its members lie behind each other: one read for all of them.
        begin = int(index.members["offset"][numbers[0]])
        end = int(index.members["offset"][numbers[-1]] + index.members["size"][numbers[-1]])
        content = self._pread(shard, begin, end - begin)
        found = Example(int(index.keys[example]), {}, {})
        for number in numbers:
            member = index.members[number]
            offset = int(member["offset"]) - begin
            part = content[offset : offset + int(member["size"])]
            if not self._is_whole(shard, example, number, part):
                return None
            name = index.names[member["name"]]
            if name == FIELDS:
                found.fields.update(json.loads(part))
            else:
                found.tokens[name] = self._ids(part, int(member["tokens"]))
        return found

    def read_tokens(self, shard: int, example: int, name: str, start: int, stop: int) -> np.ndarray | None:
        """Returns the token ids start .. stop - 1 of that name (1-D), reading no more than them once they are verified.

        Returns:
            None where the example is damaged and now in quarantine.

        Raises:
            DataError: as `read`.
        """
        opened = self._shard(shard)
        number = opened.index.member(example, name)
        if number is None:
            return np.empty(0, dtype=self._token_type)
        member = opened.index.members[number]
        size, tokens, offset = int(member["size"]), int(member["tokens"]), int(member["offset"])
        if opened.verified[number]:
            width = self._token_type.itemsize
            first = offset + size - (tokens - start) * width
            return np.frombuffer(self._pread(shard, first, (stop - start) * width), dtype=self._token_type)
        content = self._pread(shard, offset, size)
        if not self._is_whole(shard, example, number, content):
            return None
        return self._ids(content, tokens)[start:stop]

    def examples(self) -> Iterator[Example]:
        """Yields all examples in the order of the shards, without the damaged ones; errors as in `read`."""
        for shard, record in enumerate(self.shards):
            for example in range(record.examples):
                found = self.read(shard, example)
                if found is not None:
                    yield found

    def prefetch(self, shards: list[int]) -> None:
        """Begins to bring shards near that will be read soon."""
        records = [self.shards[shard] for shard in shards]
        self.storage.prefetch({record.index_file: record.index_size for record in records})
        self.storage.prefetch({record.shard_file: record.size for record in records})

    @cached_property
    def _token_type(self) -> np.dtype:
        return np.dtype(self.tokenizer.token_type)

    def _ids(self, content: bytes, tokens: int) -> np.ndarray:
        # The ids are the last bytes of an .npy file.
        offset = len(content) - tokens * self._token_type.itemsize
        return np.frombuffer(content, dtype=self._token_type, offset=offset)

    def _is_whole(self, shard: int, example: int, number: int, content: bytes) -> bool:
        """Verifies a member when it is first read; False where its example is damaged and now in quarantine."""
        opened = self._shard(shard)
        if not opened.verified[number]:
            if checksum(content) != int(opened.index.members["checksum"][number]):
                key = key_name(int(opened.index.keys[example]))
                self.quarantine.add(f"{self._file_name(shard)} sample {key}", "its checksum is not the index's")
                return False
            opened.verified[number] = True
        return True

    def _pread(self, shard: int, offset: int, size: int) -> bytes:
        content = os.pread(self._shard(shard).file.fileno(), size, offset)
        if len(content) != size:
            raise DataError(f"{self._file_name(shard)} is truncated: restore the file or prepare the data again")
        return content

    def _file_name(self, shard: int) -> str:
        return f"{self.storage.location}/{self.shards[shard].shard_file}"

    def _shard(self, number: int) -> _OpenShard:
        if number not in self._open:
            while len(self._open) >= self.open_shards:
                self._open.popitem(last=False)[1].file.close()
            record = self.shards[number]
            name = f"{self.storage.location}/{record.index_file}"
            with self.storage.open(record.index_file, record.index_size) as file:
                index = parse_index(name, file.read(), record)
            file = self.storage.open(record.shard_file, record.size)
            self._open[number] = _OpenShard(file, index, bytearray(len(index.members)))
        self._open.move_to_end(number)
        return self._open[number]
