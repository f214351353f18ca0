"""Shards of whole documents: a WebDataset tar, one member per document, and beside it an index as a NumPy array.

The index of a shard is read only while the shard is in use, so its memory does not grow with the data set. The same
documents always give the same bytes.
"""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.stream_shards import write_shard
from data_pipeline.staging import write_file

INDEX_TYPE = np.dtype([("document", "<i8"), ("offset", "<i8"), ("size", "<i8"), ("tokens", "<i8"), ("checksum", "<u8")])
"""One row per document: its number in the corpus, which is its name in the tar; where its .npy file lies; its tokens;
the first 64 bits of the file's SHA-256."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard, as the manifest knows it."""

    name: str
    """`train-000003`: the files are NAME.tar and NAME.index.npy."""
    size: int
    """Bytes of the tar."""
    documents: int
    tokens: int
    index_size: int
    index_sha256: str
    text_sha256: str
    """Of the documents as text, so that the same text is known again without tokenising it."""

    @property
    def shard_file(self) -> str:
        return f"{self.name}.tar"

    @property
    def index_file(self) -> str:
        return f"{self.name}.index.npy"


def document_name(number: int) -> str:
    """Return the WebDataset key of a document."""
    return f"{number:09d}"


def write_document_shard(
    directory: Path, name: str, documents: dict[int, np.ndarray], *, text_sha256: str
) -> ShardRecord:
    """Write the tokens (1-D) of every document under its number; afterwards tar and index are on the disk."""
    partial = directory / f"{name}.tar.partial"
    members = write_shard(partial, {document_name(number): tokens for number, tokens in documents.items()})
    index = np.array(
        [
            (number, member.offset, member.size, member.tokens, _checksum_of_digest(bytes.fromhex(member.sha256)))
            for number, member in zip(documents, members, strict=True)
        ],
        dtype=INDEX_TYPE,
    )
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, index, version=(1, 0), allow_pickle=False)
    record = ShardRecord(
        name=name,
        size=partial.stat().st_size,
        documents=len(index),
        tokens=int(index["tokens"].sum()),
        index_size=buffer.tell(),
        index_sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        text_sha256=text_sha256,
    )
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(directory / record.shard_file)
    write_file(directory / record.index_file, buffer.getvalue())
    return record


def parse_document_index(name: str, content: bytes, record: ShardRecord) -> np.ndarray:
    """Return the index of a shard (1-D INDEX_TYPE); `name` stands in errors.

    Raises:
        DataError: it is not the one that the manifest names.
    """
    if hashlib.sha256(content).hexdigest() != record.index_sha256:
        raise DataError(
            f"index {name} is damaged: its checksum is not the manifest's; restore the file or prepare the data again"
        )
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def checksum(content: bytes) -> int:
    """Return the first 64 bits of the SHA-256."""
    return _checksum_of_digest(hashlib.sha256(content).digest())


def _checksum_of_digest(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little")
