"""A trained character model put to work on text: scored as in the paper, and continued."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.evaluation.bits import BitsPerCharacter, evaluate_bits_per_character
from longformer.models.char_lm.generate import generate
from longformer.models.char_lm.model import CharacterLM

VOCABULARY_FILE = "vocabulary.json"
"""Beside the weights of a character model: which byte each token id stands for."""


@dataclass(frozen=True)
class CharacterPredictor:
    """A character model in evaluation mode and the table between its tokens and bytes."""

    model: CharacterLM
    symbols: bytes
    """The byte that each token id stands for, in the order of the ids."""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads a model directory (config.json, model.safetensors, vocabulary.json).

        Raises:
            LongformerError: a file is missing or damaged, or the model has another number of characters than the
                vocabulary.
        """
        model = CharacterLM.from_pretrained(directory).eval()
        symbols = read_symbols(directory)
        if len(symbols) != model.config.vocabulary_size:
            raise LongformerError(
                f"{directory}: the model knows {model.config.vocabulary_size} characters, but {VOCABULARY_FILE} lists "
                f"{len(symbols)}; copy the file from the data the model was trained on"
            )
        return cls(model, symbols)

    def encode(self, text: str | bytes) -> Tensor:
        """Returns the token ids of a text, (bytes,) long; a str is taken as UTF-8.

        Raises:
            LongformerError: the text holds a byte that the model has never seen.
        """
        data = text.encode() if isinstance(text, str) else text
        ids = [self.symbols.find(byte) for byte in data]
        if -1 in ids:
            position = ids.index(-1)
            raise LongformerError(
                f"byte {data[position]} ({bytes([data[position]])!r}) at position {position} is not among the "
                f"{len(self.symbols)} characters of this vocabulary: use only text of the kind the model was trained on"
            )
        return torch.tensor(ids, dtype=torch.long)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes that token ids stand for."""
        return bytes(self.symbols[token] for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of token ids; bytes that are no valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def score(
        self, text: str | bytes, *, sequence_length: int = 2048, stride: int = 512, batch_size: int = 4
    ) -> BitsPerCharacter:
        """Returns the bits per character of a text; arguments and errors as in `evaluate_bits_per_character`."""
        return evaluate_bits_per_character(
            self.model, self.encode(text), sequence_length=sequence_length, stride=stride, batch_size=batch_size
        )

    def continuation(
        self, text: str | bytes, *, characters: int, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Iterator[bytes]:
        """Yields the bytes that follow a text, one by one; arguments as in `longformer.models.char_lm.generate`."""
        for token in generate(
            self.model, self.encode(text), new_tokens=characters, temperature=temperature, top_k=top_k, seed=seed
        ):
            yield self.decode_bytes([token])


def read_symbols(directory: Path) -> bytes:
    """Returns the bytes that vocabulary.json of a directory lists, in the order of their token ids.

    Raises:
        LongformerError: the file is missing or is no vocabulary.
    """
    path = directory / VOCABULARY_FILE
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != "bytes":
            raise ValueError("unknown format")
        return bytes(content["symbols"])
    except FileNotFoundError:
        raise LongformerError(f"{path} is missing: it is written beside prepared data and trained models") from None
    except (ValueError, KeyError, TypeError, OSError):
        raise LongformerError(f"{path} is not a vocabulary file: prepare the data again") from None
