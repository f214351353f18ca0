"""Prepared documents as the rest of the system sees them: manifest, tokenizer, and the documents of every split."""

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from data_pipeline.errors import DataError, MissingFileError
from data_pipeline.shards.document_manifest import FORMAT as DOCUMENT_FORMAT
from data_pipeline.shards.document_manifest import DocumentManifest, TokenizerRecord
from data_pipeline.shards.document_shards import (
    ShardRecord,
    checksum,
    document_name,
    parse_document_index,
)
from data_pipeline.shards.remote_storage import open_storage
from data_pipeline.shards.storage import Storage
from data_pipeline.shards.stream_dataset import PreparedData
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.subword import TextTokenizer
from data_pipeline.tokenizers.tokenizer import content_sha256


@dataclass(frozen=True)
class DocumentData:
    """What `prepare_documents` has written, in a directory or behind a URL. Opening reads the manifest only."""

    storage: Storage
    manifest: DocumentManifest

    @classmethod
    def open(cls, location: str, storage: Storage | None = None) -> "DocumentData":
        """Open prepared documents at a path or URL; `storage` where its cache or patience are not the usual ones.

        Raises:
            DataError: there are none, or the manifest is damaged.
        """
        storage = storage or open_storage(location)
        try:
            content = storage.read("manifest.json")
        except MissingFileError:
            raise DataError(
                f"{location} holds no prepared documents (no manifest.json): "
                "make them with longformer data prepare documents"
            ) from None
        manifest = DocumentManifest.parse(f"{location}/manifest.json", content)
        return cls(storage.of_version(manifest.fingerprint), manifest)

    @property
    def location(self) -> str:
        """The path or URL."""
        return self.storage.location

    @property
    def fingerprint(self) -> str:
        """The content address of tokenizer and documents (SHA-256, hexadecimal)."""
        return self.manifest.fingerprint

    def tokenizer(self) -> TextTokenizer:
        """Return the tokenizer.

        Raises:
            DataError: its file is missing or is not the one of the manifest.
        """
        content = self.storage.read("tokenizer.json")
        if content_sha256(content) != self.manifest.tokenizer.sha256:
            raise DataError(f"{self.location}/tokenizer.json is not the tokenizer of the manifest: restore the file")
        return TextTokenizer(content.decode())

    def split(self, name: str, *, open_shards: int = 16, quarantine: Quarantine | None = None) -> "DocumentSplit":
        """Return the documents of "train", "validation" or "test".

        Args:
            open_shards: how many shards may be open, and their indexes in memory, at one time.
            quarantine: takes the damaged documents; None: none is borne.

        Raises:
            ValueError: there is no such split, or `open_shards` is not positive.
            DataError: it is empty, or the storage has too little room for so many shards.
        """
        if name not in self.manifest.splits:
            raise ValueError(f"no split {name!r}: choose one of {', '.join(self.manifest.splits)}")
        if open_shards < 1:
            raise ValueError(f"open_shards must be at least 1, got {open_shards}")
        shards = self._shards_with_documents(name)
        if not shards:
            raise DataError(f"{self.location} holds no documents for {name}: prepare more than 20 documents")
        sizes = sorted((shard.size + shard.index_size for shard in shards), reverse=True)
        # Those of one group of the shuffle while the next is fetched.
        self.storage.check_room(sum(sizes[: 2 * open_shards]))
        return DocumentSplit(
            self.storage,
            shards,
            name=f"{self.location} ({name})",
            fingerprint=f"{self.fingerprint}/{name}",
            kind=self.manifest.source.kind,
            tokenizer=self.manifest.tokenizer,
            open_shards=open_shards,
            quarantine=quarantine or Quarantine(0),
        )

    @property
    def samples(self) -> int:
        """Documents of all splits."""
        return sum(shard.documents for shards in self.manifest.splits.values() for shard in shards)

    def find_damage(self) -> list[str]:
        """Read everything against its checksum; return one sentence for every damage, none when all is well."""
        damages: list[str] = []
        try:
            self.tokenizer()
        except DataError as error:
            damages.append(str(error))
        for name in filter(self._shards_with_documents, self.manifest.splits):
            quarantine = Quarantine(limit=self.samples)
            split = self.split(name, open_shards=1, quarantine=quarantine)
            for number in range(len(split.shards)):
                try:
                    for document, tokens in enumerate(split.lengths(number)):
                        split.read(number, document, 0, int(tokens))
                except DataError as error:
                    damages.append(str(error))
            damages += [f"{sample} is damaged: {reason}" for sample, reason in quarantine.items()]
        return damages

    def _shards_with_documents(self, name: str) -> tuple[ShardRecord, ...]:
        """Return the shards of a split without those whose documents were all empty."""
        return tuple(shard for shard in self.manifest.splits[name] if shard.documents)


@dataclass
class _OpenShard:
    file: IO[bytes]
    index: np.ndarray
    verified: bytearray


@dataclass
class DocumentSplit:
    """Read any document of a split; a bounded number of shards is open, none is held in memory."""

    storage: Storage
    shards: tuple[ShardRecord, ...]
    name: str
    """For messages."""
    fingerprint: str
    """Of the prepared data, and which split it is."""
    kind: str
    """What a sample is made of, as in the manifest."""
    tokenizer: TokenizerRecord
    open_shards: int
    quarantine: Quarantine
    _open: OrderedDict[int, _OpenShard] = field(default_factory=OrderedDict)

    def lengths(self, shard: int) -> np.ndarray:
        """Return the tokens of every document of a shard (1-D int64).

        Raises:
            DataError: the index is damaged, or shard or index cannot be had.
        """
        return self._shard(shard).index["tokens"]

    def read(self, shard: int, document: int, start: int, stop: int) -> np.ndarray | None:
        """Return the tokens start .. stop - 1 of a document (1-D), None where it is damaged and now in quarantine.

        Raises:
            DataError: more documents are damaged than the quarantine bears, or the shard cannot be had.
        """
        opened, token_type = self._shard(shard), np.dtype(self.tokenizer.token_type)
        row = opened.index[document]
        width = token_type.itemsize
        size, offset = int(row["size"]), int(row["offset"])
        first_token = size - int(row["tokens"]) * width
        if opened.verified[document]:
            content = os.pread(opened.file.fileno(), (stop - start) * width, offset + first_token + start * width)
            return np.frombuffer(content, dtype=token_type)
        content = os.pread(opened.file.fileno(), size, offset)
        if checksum(content) != int(row["checksum"]):
            name = f"{self.storage.location}/{self.shards[shard].shard_file} sample {document_name(row['document'])}"
            self.quarantine.add(name, "its checksum is not the index's")
            return None
        opened.verified[document] = True
        return np.frombuffer(content, dtype=token_type, offset=first_token)[start:stop]

    def prefetch(self, shards: list[int]) -> None:
        """Begin to bring shards near that will be read soon."""
        records = [self.shards[shard] for shard in shards]
        self.storage.prefetch({record.index_file: record.index_size for record in records})
        self.storage.prefetch({record.shard_file: record.size for record in records})

    def _shard(self, number: int) -> _OpenShard:
        if number not in self._open:
            while len(self._open) >= self.open_shards:
                self._open.popitem(last=False)[1].file.close()
            record = self.shards[number]
            name = f"{self.storage.location}/{record.index_file}"
            with self.storage.open(record.index_file, record.index_size) as file:
                index = parse_document_index(name, file.read(), record)
            file = self.storage.open(record.shard_file, record.size)
            self._open[number] = _OpenShard(file, index, bytearray(len(index)))
        self._open.move_to_end(number)
        return self._open[number]


def open_prepared(location: str) -> DocumentData | PreparedData:
    """Open whatever `longformer data prepare` has written at a path or, documents only, at a URL.

    Raises:
        DataError: there is nothing, or its manifest is damaged.
    """
    manifest = Path(location, "manifest.json")
    if "://" in location or (manifest.is_file() and DOCUMENT_FORMAT in manifest.read_text()[:100]):
        return DocumentData.open(location)
    return PreparedData.open(Path(location))
