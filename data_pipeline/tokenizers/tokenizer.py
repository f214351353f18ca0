"""What preparation and training ask of a tokenizer, and what a manifest remembers of it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that are not text."""

    begin: int
    """<s> or [CLS]: begins a sequence."""
    end: int
    """</s> or [SEP]: ends a sequence and stands between documents."""
    padding: int
    mask: int
    others: tuple[int, ...]
    """Every other special token, such as <unk>."""

    @property
    def all(self) -> tuple[int, ...]:
        """Every special id, in increasing order."""
        return tuple(sorted({self.begin, self.end, self.padding, self.mask, *self.others}))


@dataclass(frozen=True)
class TextFormat:
    """The special tokens that a tokenizer puts around texts: `before text after`, `before text between text after`."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    """`</s>` or [SEP]; of mBART `</s>` and the language."""
    target_language: int | None = None
    """What stands for the language around texts that are written, where that is another one."""
    second_type: int = 0
    """The token type of the second text and what follows it, 1 of BERT; that of all before is 0."""

    @property
    def around_pair(self) -> int:
        """How many special tokens two texts get."""
        return len(self.before) + len(self.between) + len(self.after)


class Tokenizer(Protocol):
    """Translates text into token ids and back."""

    file_name: ClassVar[str]
    """Its file beside prepared data."""

    @property
    def content(self) -> str:
        """The content of that file."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special ones included."""
        ...

    @property
    def special(self) -> SpecialTokens | None:
        """The special tokens; None where every token is text."""
        ...

    @property
    def token_type(self) -> np.dtype:
        """The narrowest unsigned integer that holds every id."""
        ...

    def encode_batch(self, texts: Iterable[str | bytes]) -> Iterator[np.ndarray]:
        """Yields the ids of every text (1-D `token_type`), nothing added; memory does not grow with their number."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of these ids."""
        ...

    def save(self, path: Path) -> None:
        """Writes `content`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenizerRecord:
    """A tokenizer as a manifest knows it."""

    file: str
    """Lies beside the manifest: tokenizer.json of subwords, vocabulary.json of bytes."""
    sha256: str
    vocabulary_size: int
    token_type: str
    """uint8, uint16 or uint32."""
    special: SpecialTokens | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenizerRecord":
        """Returns the record of a tokenizer."""
        return cls(
            file=tokenizer.file_name,
            sha256=content_sha256(tokenizer.content.encode()),
            vocabulary_size=tokenizer.vocabulary_size,
            token_type=tokenizer.token_type.name,
            special=tokenizer.special,
        )

    @property
    def special_tokens(self) -> SpecialTokens:
        """The special tokens.

        Raises:
            ValueError: the tokenizer has none.
        """
        if self.special is None:
            raise ValueError(f"{self.file} has no special tokens: use sequences of characters")
        return self.special


def content_sha256(content: bytes) -> str:
    """Returns the identity of a tokenizer: the SHA-256 (hexadecimal) of its file."""
    return hashlib.sha256(content).hexdigest()
