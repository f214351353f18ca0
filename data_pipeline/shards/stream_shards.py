"""Write tokens as WebDataset tar shards with an index, and read the index back.

A shard is a plain tar file, `train-000000.tar`, whose members `000000.tokens.npy` hold 65,536 tokens each; any
WebDataset reader can stream it. The index, one JSON line per member, tells where each lies and what its SHA-256 is, so
that ours can read any range. The same tokens always give the same bytes.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError

TOKENS_PER_MEMBER = 65_536
_MEMBERS_PER_SHARD = 128


@dataclass(frozen=True)
class Member:
    """One line of the index."""

    sample: str
    """The WebDataset key, unique within the split."""
    shard: str
    offset: int
    """Where the .npy file begins in the shard, in bytes."""
    size: int
    """The size of the .npy file in bytes; its tokens are its last bytes."""
    tokens: int
    sha256: str
    """Of the .npy file."""


def write_shards(directory: Path, split: str, token_blocks: Iterable[np.ndarray]) -> list[Member]:
    """Write each block of tokens (1-D uint8 or uint16) as a member of the split's shards and return the index."""
    members: list[Member] = []
    blocks = iter(token_blocks)
    for number in range(1_000_000):
        chosen = list(islice(blocks, _MEMBERS_PER_SHARD))
        if not chosen:
            break
        samples = {f"{sample:06d}": block for sample, block in enumerate(chosen, start=len(members))}
        members += write_shard(directory / f"{split}-{number:06d}.tar", samples)
    return members


def write_shard(path: Path, samples: dict[str, np.ndarray]) -> list[Member]:
    """Write one shard: every WebDataset key with its tokens (1-D)."""
    # Imported here because webdataset imports torch, which takes seconds that reading prepared data need not pay.
    from webdataset.writer import TarWriter

    contents = {sample: _npy(tokens) for sample, tokens in samples.items()}
    with path.open("wb") as file, TarWriter(file, user="", group="", mtime=0, encoder=False) as writer:
        for sample, content in contents.items():
            writer.write({"__key__": sample, "tokens.npy": content})
    with tarfile.open(path) as archive:
        offsets = [entry.offset_data for entry in archive]
    return [
        Member(sample, path.name, offset, len(content), len(samples[sample]), hashlib.sha256(content).hexdigest())
        for (sample, content), offset in zip(contents.items(), offsets, strict=True)
    ]


def _npy(tokens: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, tokens, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def index_path(directory: Path, split: str) -> Path:
    """Return where the index of a split lies."""
    return directory / f"{split}.index.jsonl"


def write_index(path: Path, members: list[Member]) -> str:
    """Write the index and return its SHA-256."""
    content = "".join(json.dumps(asdict(member)) + "\n" for member in members).encode()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_index(path: Path, *, sha256: str) -> list[Member]:
    """Read an index.

    Raises:
        DataError: the file is missing or is not the one with this checksum.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"index {path} cannot be read ({error.strerror}): prepare the data again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"index {path} is damaged: its checksum is not the manifest's; prepare the data again")
    return [Member(**json.loads(line)) for line in content.splitlines()]
