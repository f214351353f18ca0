"""Between text and token ids: a token is one byte, its id the byte's place in a short table.

The three character corpora differ only in the table: the bytes that occur (enwik8), the 27 characters of text8,
all 256 bytes (any text).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.staging import write_file

_UNKNOWN = 256


@dataclass(frozen=True)
class Vocabulary:
    """Translate bytes into dense token ids and back.

    Raises:
        ValueError: `symbols` is empty or names a byte twice.
    """

    file_name: ClassVar[str] = "vocabulary.json"
    special: ClassVar[None] = None
    token_type: ClassVar[np.dtype] = np.dtype(np.uint8)

    symbols: bytes
    """The byte that each token id stands for, in the order of the ids."""

    _ids: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise ValueError("a vocabulary needs at least one symbol, and each only once")
        ids = np.full(256, _UNKNOWN, dtype=np.uint16)
        ids[list(self.symbols)] = np.arange(len(self.symbols), dtype=np.uint16)
        object.__setattr__(self, "_ids", ids)

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        return len(self.symbols)

    @property
    def content(self) -> str:
        """vocabulary.json."""
        return json.dumps({"format": "bytes", "symbols": list(self.symbols)}) + "\n"

    def encode(self, text: str | bytes) -> np.ndarray:
        """Returns the ids (1-D uint8, one per byte; a str is taken as UTF-8).

        Raises:
            DataError: the text holds a byte that the vocabulary lacks.
        """
        data = text.encode() if isinstance(text, str) else text
        ids = self._ids[np.frombuffer(data, dtype=np.uint8)]
        unknown = np.flatnonzero(ids == _UNKNOWN)
        if len(unknown):
            position = int(unknown[0])
            raise DataError(
                f"byte {data[position]} ({bytes([data[position]])!r}) at position {position} is not among the "
                f"{len(self)} characters of this vocabulary: use only text of the kind the model was trained on"
            )
        return ids.astype(np.uint8)

    def encode_batch(self, texts: Iterable[str | bytes]) -> Iterator[np.ndarray]:
        """Yields the ids of every text, as `encode`."""
        return map(self.encode, texts)

    def decode_bytes(self, ids: np.ndarray | Iterable[int]) -> bytes:
        """Returns the bytes that these token ids stand for: the exact inverse of `encode`.

        Raises:
            ValueError: an id is outside 0 .. len(self) - 1.
        """
        array = ids if isinstance(ids, np.ndarray) else np.array(list(ids), dtype=np.int64)
        if len(array) and not 0 <= array.min() <= array.max() < len(self):
            raise ValueError(f"token ids must lie between 0 and {len(self) - 1}")
        return np.frombuffer(self.symbols, dtype=np.uint8)[array].tobytes()

    def decode(self, ids: np.ndarray | Iterable[int]) -> str:
        """Returns the text of these token ids; bytes that are no valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def save(self, path: Path) -> None:
        """Writes vocabulary.json."""
        write_file(path, self.content.encode())

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads vocabulary.json.

        Raises:
            DataError: the file is missing or is no vocabulary.
        """
        try:
            return cls.parse(path.read_bytes(), str(path))
        except FileNotFoundError:
            raise DataError(f"{path} is missing: it is written beside prepared data and exported models") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Vocabulary":
        """Reads the content of the vocabulary file that is called `name` in errors.

        Raises:
            DataError: it is no vocabulary.
        """
        try:
            values = json.loads(content)
            if values["format"] != "bytes":
                raise ValueError("unknown format")
            return cls(bytes(values["symbols"]))
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{name} is not a vocabulary file: prepare the data again") from None
