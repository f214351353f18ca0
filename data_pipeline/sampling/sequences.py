"""Sequences made of documents: several packed into each, or one each. Which ones is a pure function of the position."""

import hashlib
import json
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.order import sample_at
from data_pipeline.sampling.shuffle import DocumentLine, Piece
from data_pipeline.shards.document_dataset import DocumentSplit
from data_pipeline.shards.document_manifest import TokenizerRecord

_MIXING_CYCLE = 1_000


@dataclass(frozen=True)
class Row:
    """One sequence."""

    tokens: np.ndarray
    """(length,) int64. Where a damaged document would stand, padding."""
    documents: np.ndarray
    """(length,) int64: 1, 2, 3 ... for the documents of the row; 0 where there is none to be read."""

    def columns(self) -> dict[str, np.ndarray]:
        """Return what a batch holds of the row, by name; `input_ids` and `attention_mask` are always among it."""
        return {
            "input_ids": self.tokens,
            "attention_mask": (self.documents > 0).astype(np.int64),
            "document_ids": self.documents,
        }


class Rows(Protocol):
    """An endless order of sequences."""

    tokenizer: TokenizerRecord
    fingerprint: str
    """Of the data and of everything that decides which row stands where (SHA-256, hexadecimal)."""
    per_epoch: int
    """Rows in one epoch."""
    name: str
    """What the rows are made of, for messages."""

    def row(self, position: int) -> Row:
        """Return the row at a position of the order, >= 0."""
        ...

    def row_length(self, position: int) -> int:
        """Return the length of the row at a position, without reading it."""
        ...


class PackedRows:
    """Rows of exactly `sequence_length` tokens, cut from all documents joined by the end token (FULL-SENTENCES over
    whole documents, spec section 4): begin token, `sequence_length` - 2 tokens of the joined text, end token.

    The joined text goes on from row to row and from epoch to epoch, so no token is left out and none is padding.

    Raises:
        ValueError: `sequence_length` leaves no room for text.
    """

    def __init__(self, split: DocumentSplit, *, sequence_length: int, seed: int) -> None:
        self._text = _room_for_text(sequence_length)
        self.tokenizer = split.tokenizer
        self.name = f"{split.name} in sequences of {sequence_length:,}"
        self.fingerprint = digest("packed", split.fingerprint, split.open_shards, sequence_length, seed)
        self._split = split
        self._line = DocumentLine(split, seed, gap=1)
        self.per_epoch = self._line.length // self._text

    def row(self, position: int) -> Row:
        """Return the row; the begin token belongs to its first document, the end token to its last."""
        special = self.tokenizer.special
        pieces = self._line.pieces(position * self._text, (position + 1) * self._text)
        read = [self._piece(piece) for piece in pieces]
        documents = [
            np.full(len(tokens), number if readable else 0) for number, (tokens, readable) in enumerate(read, start=1)
        ]
        return Row(
            tokens=np.concatenate([[special.begin], *(tokens for tokens, _ in read), [special.end]]),
            documents=np.concatenate([[1], *documents, [len(read)]]),
        )

    def row_length(self, position: int) -> int:
        """Return the sequence length."""
        return self._text + 2

    def _piece(self, piece: Piece) -> tuple[np.ndarray, bool]:
        """Return the tokens of a piece and True, or padding and False where its document is damaged."""
        tokens_in_document = int(self._split.lengths(piece.shard)[piece.document])
        stop = min(piece.stop, tokens_in_document)
        read = self._split.read(piece.shard, piece.document, piece.start, stop) if piece.start < stop else np.empty(0)
        if read is None:
            return np.full(piece.stop - piece.start, self.tokenizer.special.padding), False
        separator = [self.tokenizer.special.end] * (piece.stop - stop)
        return np.concatenate([read.astype(np.int64), np.array(separator, dtype=np.int64)]), True


class DocumentRows:
    """One document per row, between the begin and the end token; of a longer one the first tokens.

    Raises:
        ValueError: `sequence_length` leaves no room for text.
    """

    def __init__(self, split: DocumentSplit, *, sequence_length: int, seed: int) -> None:
        self._text = _room_for_text(sequence_length)
        self.tokenizer = split.tokenizer
        self.name = split.name
        self.fingerprint = digest("documents", split.fingerprint, split.open_shards, sequence_length, seed)
        self._split = split
        self._line = DocumentLine(split, seed, by_document=True)
        self.per_epoch = self._line.length

    def row(self, position: int) -> Row:
        """Return the row; a damaged document is begin and end token only."""
        (piece,) = self._line.pieces(position, position + 1)
        special = self.tokenizer.special
        read = self._split.read(piece.shard, piece.document, 0, self._text_length(piece))
        text = np.empty(0, dtype=np.int64) if read is None else read.astype(np.int64)
        tokens = np.concatenate([[special.begin], text, [special.end]])
        return Row(tokens, np.ones(len(tokens), dtype=np.int64))

    def row_length(self, position: int) -> int:
        """Return the length, begin and end token included."""
        (piece,) = self._line.pieces(position, position + 1)
        return self._text_length(piece) + 2

    def _text_length(self, piece: Piece) -> int:
        return min(self._text, int(self._split.lengths(piece.shard)[piece.document]))


class MixedRows:
    """Rows of several sources, drawn by weight: of every 1,000 rows each source gives its exact share, shuffled.

    Every source is an endless order of its own; within the mix its rows follow it but for a shuffle of its share.

    Args:
        sources: rows and their weights; weights are relative and rounded to a thousandth.

    Raises:
        ValueError: no sources, or a weight that is not positive or below half a thousandth of all.
        DataError: the sources have different tokenizers.
    """

    def __init__(self, sources: list[tuple[Rows, float]], *, seed: int) -> None:
        if not sources or min(weight for _, weight in sources) <= 0:
            raise ValueError("a mix needs sources with positive weights")
        self._sources = [rows for rows, _ in sources]
        self._shares = _rounded_shares([weight for _, weight in sources])
        self._starts = np.cumsum([0, *self._shares])
        self._seed = seed
        self.tokenizer = self._sources[0].tokenizer
        for rows in self._sources:
            if rows.tokenizer != self.tokenizer:
                raise DataError(
                    f"{rows.name} was prepared with another tokenizer than {self._sources[0].name}: "
                    "prepare both with the same"
                )
        self.name = " and ".join(rows.name for rows in self._sources)
        self.fingerprint = digest("mixed", [rows.fingerprint for rows in self._sources], self._shares, seed)
        self.per_epoch = min(
            rows.per_epoch * _MIXING_CYCLE // share for rows, share in zip(self._sources, self._shares, strict=True)
        )
        """Rows until the first of the sources begins again."""

    def place(self, position: int) -> tuple[int, int]:
        """Return which source a position of the mix belongs to, and its position in that source's own order."""
        slot = sample_at(position, epoch_size=_MIXING_CYCLE, seed=self._seed)
        source = int(np.searchsorted(self._starts, slot, side="right")) - 1
        cycle = position // _MIXING_CYCLE
        return source, cycle * self._shares[source] + slot - int(self._starts[source])

    def row(self, position: int) -> Row:
        """Return the row of the source that the position belongs to."""
        source, own_position = self.place(position)
        return self._sources[source].row(own_position)

    def row_length(self, position: int) -> int:
        """Return the length of that row."""
        source, own_position = self.place(position)
        return self._sources[source].row_length(own_position)


def check_enough(rows: Rows, *, global_batch_size: int) -> None:
    """Raise DataError when an epoch has fewer rows than one global batch, with the number that would do.

    The number of shards sets no such bound: every rank reads from all shards, so one is enough for any number of ranks.
    """
    if rows.per_epoch < global_batch_size:
        remedy = f" or use a batch of at most {rows.per_epoch:,}" if rows.per_epoch else ""
        raise DataError(
            f"{rows.name} gives {rows.per_epoch:,} rows an epoch, fewer than one global batch of "
            f"{global_batch_size:,}: prepare more documents{remedy}"
        )


def _room_for_text(sequence_length: int) -> int:
    """Return what the begin and the end token leave of a row."""
    if sequence_length < 3:
        raise ValueError(f"sequence_length must be at least 3, got {sequence_length}")
    return sequence_length - 2


def _rounded_shares(weights: list[float]) -> list[int]:
    """Return whole shares that add up to a cycle, by largest remainder."""
    exact = np.array(weights) / sum(weights) * _MIXING_CYCLE
    shares = np.floor(exact).astype(int)
    missing = _MIXING_CYCLE - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    if shares.min() == 0:
        raise ValueError(
            f"a weight of {min(weights)} among {sum(weights)} is too small: at least a thousandth is needed"
        )
    return shares.tolist()


def digest(*parts: object) -> str:
    """Return the SHA-256 (hexadecimal) of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
