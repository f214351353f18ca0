"""Read any range of a split's tokens straight from the tar shards, through the index.

The checksum of every tar member is verified when it is first touched. Memory and open files are bounded whatever the
size of the data: one member at a time is held, the operating system's page cache does the rest.
"""

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import IO

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.stream_manifest import SplitRecord
from data_pipeline.shards.stream_shards import Member, index_path, read_index

_OPEN_SHARDS = 16


class TokenStream:
    """The tokens of one split, 0 .. len - 1.

    Raises:
        DataError: index or a shard is missing, or has not the size or checksum of the manifest.
    """

    def __init__(
        self, directory: Path, split: str, record: SplitRecord, *, token_type: np.dtype, fingerprint: str
    ) -> None:
        self.split = split
        self.fingerprint = fingerprint
        """The fingerprint of the whole prepared data set."""
        self._directory = directory
        self._token_type = token_type
        self._members = read_index(index_path(directory, split), sha256=record.index_sha256)
        self._ends = np.cumsum([member.tokens for member in self._members])
        self._verified = bytearray(len(self._members))
        self._files: OrderedDict[str, IO[bytes]] = OrderedDict()
        for shard, size in record.shards.items():
            _check_size(directory / shard, size)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the tokens start .. stop - 1 (1-D, uint8 or uint16).

        Raises:
            ValueError: the range does not lie inside the stream.
            DataError: a tar member in the range is damaged; the message names shard and sample.
        """
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"tokens {start} to {stop} do not lie within the {len(self)} tokens of {self.split}")
        tokens = np.empty(stop - start, dtype=self._token_type)
        number = int(np.searchsorted(self._ends, start, side="right"))
        position = start
        while position < stop:
            end = int(self._ends[number])
            member_start = end - self._members[number].tokens
            piece_stop = min(stop, end)
            tokens[position - start : piece_stop - start] = self._read_member(
                number, position - member_start, piece_stop - member_start
            )
            position = piece_stop
            number += 1
        return tokens

    def damaged_members(self) -> list[str]:
        """Read everything and return one sentence for every damaged tar member."""
        damages = []
        for number, member in enumerate(self._members):
            self._verified[number] = False
            try:
                self._read_member(number, 0, member.tokens)
            except DataError as error:
                damages.append(str(error))
        return damages

    def _read_member(self, number: int, start: int, stop: int) -> np.ndarray:
        member = self._members[number]
        width = self._token_type.itemsize
        first_token = member.size - member.tokens * width
        if self._verified[number]:
            content = self._pread(member, first_token + start * width, (stop - start) * width)
            return np.frombuffer(content, dtype=self._token_type)
        content = self._pread(member, 0, member.size)
        if hashlib.sha256(content).hexdigest() != member.sha256:
            raise DataError(
                f"shard {self._directory / member.shard} is damaged at sample {member.sample}: its checksum is not "
                "the index's; restore the file or prepare the data again"
            )
        self._verified[number] = True
        return np.frombuffer(content, dtype=self._token_type, offset=first_token)[start:stop]

    def _pread(self, member: Member, offset: int, size: int) -> bytes:
        try:
            content = os.pread(self._file(member.shard).fileno(), size, member.offset + offset)
        except OSError as error:
            raise DataError(
                f"shard {self._directory / member.shard} cannot be read at sample {member.sample}: {error.strerror}"
            ) from None
        if len(content) != size:
            raise DataError(
                f"shard {self._directory / member.shard} is truncated at sample {member.sample}: "
                "restore the file or prepare the data again"
            )
        return content

    def _file(self, shard: str) -> IO[bytes]:
        if shard not in self._files:
            while len(self._files) >= _OPEN_SHARDS:
                self._files.popitem(last=False)[1].close()
            self._files[shard] = (self._directory / shard).open("rb", buffering=0)
        self._files.move_to_end(shard)
        return self._files[shard]


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError:
        raise DataError(f"shard {path} is missing: restore the file or prepare the data again") from None
    if found != size:
        raise DataError(
            f"shard {path} is damaged: it has {found} bytes, the manifest says {size}; "
            "restore the file or prepare the data again"
        )
