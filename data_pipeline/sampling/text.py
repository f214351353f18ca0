"""Sequences of plain text: cut from one stream of characters, packed from whole documents, or a document each."""

from collections.abc import Mapping

import numpy as np

from data_pipeline.sampling.base import Sequence, digest, room_for_text
from data_pipeline.sampling.order import sample_at
from data_pipeline.sampling.shuffle import Piece, ShuffledExamples
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.stream import TokenStream
from data_pipeline.sources.corpora import TEXT


class StreamSequences:
    """Equally long sequences of one stream of tokens, whatever examples the stream is made of.

    Sequence i of length L is the tokens i*L .. i*L + L, both included: L inputs and, one further, L targets. A sequence
    is {"tokens": (L + 1,) int64}. Their order is a permutation of all of them in every epoch.

    Raises:
        ValueError: the sequence length is not positive.
    """

    padding: Mapping[str, int | float] = {}

    def __init__(self, split: Split, *, sequence_length: int, seed: int) -> None:
        if sequence_length < 1:
            raise ValueError("the sequence length must be positive")
        self.tokenizer = split.tokenizer
        self._stream = TokenStream(split)
        self._length = sequence_length
        self._seed = seed
        self.name = f"{split.name} in sequences of {sequence_length:,}"
        self.fingerprint = digest("stream", split.fingerprint, sequence_length, seed)
        self.per_epoch = max(0, (len(self._stream) - 1) // sequence_length)

    def sequence(self, position: int) -> Sequence:
        """Returns the tokens of the sequence that the order names."""
        start = sample_at(position, epoch_size=self.per_epoch, seed=self._seed) * self._length
        return {"tokens": self._stream.read(start, start + self._length + 1).astype(np.int64)}

    def length(self, position: int) -> int:
        """Returns the sequence length."""
        return self._length

    def longest(self, per_epoch: int) -> int:
        """Returns the longest length of which the stream holds `per_epoch` sequences."""
        return (len(self._stream) - 1) // per_epoch


class PackedSequences:
    """Sequences of exactly `sequence_length` tokens, cut from all documents joined by the end token (FULL-SENTENCES
    over whole documents, semantics.md 4): begin token, `sequence_length` - 2 tokens of the joined text, end token.

    The joined text goes on from sequence to sequence and from epoch to epoch, so no token is skipped and none is
    padding. A sequence is {"input_ids", "attention_mask"}, both (sequence_length,) int64; where a damaged document
    would stand, it is padding and its attention_mask 0. With `tell_documents` it has "document_ids" too, which
    count its documents from 0; begin and end token are of the first and the last one.

    Raises:
        ValueError: `sequence_length` leaves no room for text, or the data is of characters.
    """

    def __init__(
        self, split: Split, *, sequence_length: int, seed: int, text: str = TEXT, tell_documents: bool = False
    ) -> None:
        self._room = room_for_text(sequence_length)
        self.tokenizer = split.tokenizer
        self._special = split.tokenizer.special_tokens
        self._tell_documents = tell_documents
        split.check_has(text, f"holds no {text}: prepare it as documents")
        self.name = f"{split.name} in sequences of {sequence_length:,}"
        self.fingerprint = digest("packed", split.fingerprint, text, split.open_shards, sequence_length, seed)
        self.padding: Mapping[str, int | float] = {"input_ids": self._special.padding}
        self._split = split
        self._text = text
        self._line = ShuffledExamples(split, seed, text, gap=1)
        self.per_epoch = self._line.length // self._room

    def sequence(self, position: int) -> Sequence:
        """Returns the sequence."""
        read = [self._read(piece) for piece in self.pieces(position)]
        tokens = np.concatenate([[self._special.begin], *(tokens for tokens, _ in read), [self._special.end]])
        readable = np.concatenate([[True], *(np.full(len(tokens), whole) for tokens, whole in read), [True]])
        sequence = {"input_ids": tokens, "attention_mask": readable.astype(np.int64)}
        if self._tell_documents:
            lengths = [len(tokens) for tokens, _ in read]
            lengths[0] += 1
            lengths[-1] += 1
            sequence["document_ids"] = np.repeat(np.arange(len(read)), lengths)
        return sequence

    def pieces(self, position: int) -> list[Piece]:
        """Returns which parts of which documents a sequence is packed from, their end tokens counted."""
        return self._line.pieces(position * self._room, (position + 1) * self._room)

    def length(self, position: int) -> int:
        """Returns the sequence length."""
        return self._room + 2

    def longest(self, per_epoch: int) -> int:
        """Returns the longest length that gives an epoch `per_epoch` sequences."""
        return self._line.length // per_epoch + 2

    def _read(self, piece: Piece) -> tuple[np.ndarray, bool]:
        """Returns the tokens of a piece and True, or padding and False where its document is damaged."""
        tokens_in_document = int(self._split.lengths(piece.shard, self._text)[piece.example])
        stop = min(piece.stop, tokens_in_document)
        read: np.ndarray | None = np.empty(0, dtype=np.int64)
        if piece.start < stop:
            read = self._split.read_tokens(piece.shard, piece.example, self._text, piece.start, stop)
        if read is None:
            return np.full(piece.stop - piece.start, self._special.padding), False
        separator = np.full(piece.stop - stop, self._special.end, dtype=np.int64)
        return np.concatenate([read.astype(np.int64), separator]), True


class DocumentSequences:
    """One document per sequence, between the begin and the end token; of a longer one the first tokens.

    A sequence is {"input_ids", "attention_mask"}, both (length,) int64. A damaged document is begin and end token only.

    Raises:
        ValueError: `sequence_length` leaves no room for text, or the data is of characters.
    """

    def __init__(self, split: Split, *, sequence_length: int, seed: int, text: str = TEXT) -> None:
        self._room = room_for_text(sequence_length)
        self.tokenizer = split.tokenizer
        self._special = split.tokenizer.special_tokens
        split.check_has(text, f"holds no {text}: prepare it as documents")
        self.name = split.name
        self.fingerprint = digest("documents", split.fingerprint, text, split.open_shards, sequence_length, seed)
        self.padding: Mapping[str, int | float] = {"input_ids": self._special.padding}
        self._split = split
        self._text = text
        self._line = ShuffledExamples(split, seed)
        self.per_epoch = self._line.length

    def sequence(self, position: int) -> Sequence:
        """Returns the sequence."""
        (piece,) = self._line.pieces(position, position + 1)
        room = self._room_of(piece)
        read = self._split.read_tokens(piece.shard, piece.example, self._text, 0, room)
        text = np.empty(0, dtype=np.int64) if read is None else read.astype(np.int64)
        tokens = np.concatenate([[self._special.begin], text, [self._special.end]])
        return {"input_ids": tokens, "attention_mask": np.ones(len(tokens), dtype=np.int64)}

    def length(self, position: int) -> int:
        """Returns the length, begin and end token included."""
        (piece,) = self._line.pieces(position, position + 1)
        return self._room_of(piece) + 2

    def longest(self, per_epoch: int) -> None:
        """Returns None: the number of sequences is that of the documents."""

    def _room_of(self, piece: Piece) -> int:
        return min(self._room, int(self._split.lengths(piece.shard, self._text)[piece.example]))
