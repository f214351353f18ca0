"""Sequences for learning labels: a text each, between the begin and the end token, and its label."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest, room_for_text
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.order import sample_at
from data_pipeline.sampling.shuffle import Piece, ShuffledExamples
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.labels import Problem

LongDocuments = Literal["truncate_end", "truncate_begin", "windows"]
"""What is read of a text that is too long: its beginning, its end, or windows that together cover it."""


class LabelledSequences:
    """One example per sequence: {"input_ids", "attention_mask"}, both (length,) int64, and "labels".

    Labels are those of the `problem`: of a single label the number of the class (int64, no dimension), of several a 1
    or 0 for every class (float32, (classes,)), of regression the number (float32, no dimension). Where a text is read
    in windows, every epoch shows another one of each, chosen by the position alone. A damaged example is begin and end
    token only, and its label IGNORED or NaN, which no objective counts.

    Args:
        text: the name of the token ids.
        label: the field.
        problem: what the field holds; see `data_pipeline.sources.labels.read_label`.
        classes: names of the classes in the order of their numbers; of regression none.
        long_documents: what is read of longer texts.

    Raises:
        ValueError: `sequence_length` leaves no room for text, or the data is of characters.
        DataError: the split has no such text.
    """

    def __init__(
        self,
        split: Split,
        *,
        text: str,
        label: str,
        problem: Problem,
        classes: Sequence[str],
        sequence_length: int,
        seed: int,
        long_documents: LongDocuments = "truncate_end",
    ) -> None:
        room_for_text(sequence_length)  # refuses one that leaves none
        self._sequence_length = sequence_length
        self.tokenizer = split.tokenizer
        self._special = split.tokenizer.special_tokens
        split.check_has(text, f"holds no {text}: prepare it with this text")
        self.name = split.name
        self.fingerprint = digest(
            "labelled",
            split.fingerprint,
            split.open_shards,
            text,
            label,
            problem,
            list(classes),
            sequence_length,
            seed,
            long_documents,
        )
        self.padding: Mapping[str, int | float] = {"input_ids": self._special.padding}
        self._split = split
        self._text = text
        self._label = label
        self._problem = problem
        self._numbers = {name: number for number, name in enumerate(classes)}
        self._seed = seed
        self._long_documents = long_documents
        self._line = ShuffledExamples(split, seed)
        self.per_epoch = self._line.length

    def sequence(self, position: int) -> NamedArrays:
        """Returns the sequence.

        Raises:
            DataError: the example has no such label.
        """
        piece = self._piece(position)
        room = self._sequence_length - self._beside(piece)
        start = self._start(piece, room, epoch=position // self.per_epoch)
        return self._sequence(piece.shard, piece.example, slice(start, start + room))

    def whole(self, shard: int, example: int) -> NamedArrays:
        """Returns an example of a shard with all of its tokens, for reading a split in its own order."""
        return self._sequence(shard, example, slice(None))

    def length(self, position: int) -> int:
        """Returns the length, with all that stands beside the text."""
        piece = self._piece(position)
        return min(self._sequence_length, self._tokens(piece) + self._beside(piece))

    def check_room(self) -> None:
        """Raises DataError where what stands beside a text leaves no room for it; begin and end token do."""

    def longest(self, per_epoch: int) -> None:
        """Returns None: the number of sequences is that of the examples."""

    def _piece(self, position: int) -> Piece:
        (piece,) = self._line.pieces(position, position + 1)
        return piece

    def _tokens(self, piece: Piece) -> int:
        return int(self._split.lengths(piece.shard, self._text)[piece.example])

    def _beside(self, piece: Piece) -> int:
        """Returns how many tokens stand beside the text: the one that begins and the one that ends it."""
        return 2

    def _start(self, piece: Piece, room: int, epoch: int) -> int:
        """Returns the first token of a text that an epoch shows."""
        tokens = self._tokens(piece)
        last = max(0, tokens - room)
        if self._long_documents == "truncate_end":
            return 0
        if self._long_documents == "truncate_begin":
            return last
        # The windows of a text take turns, those of each text in an order of their own.
        windows = math.ceil(tokens / room) or 1
        turn = sample_at(epoch, epoch_size=windows, seed=self._seed + (piece.shard << 32) + piece.example)
        return min(last, room * turn)

    def _sequence(self, shard: int, example: int, shown: slice) -> NamedArrays:
        return self._arrays(self._split.read(shard, example), shown)

    def _arrays(self, read: Example | None, shown: slice) -> NamedArrays:
        if read is None:
            text, label = np.empty(0, dtype=np.int64), self._no_label()
        else:
            text = read.tokens[self._text][shown].astype(np.int64)
            label = self._label_of(read, shown)
        tokens = np.concatenate([[self._special.begin], text, [self._special.end]])
        return {"input_ids": tokens, "attention_mask": np.ones(len(tokens), dtype=np.int64), "labels": label}

    def _no_label(self) -> np.ndarray:
        if self._problem == "single_label":
            return np.array(IGNORED)
        shape = () if self._problem == "regression" else len(self._numbers)
        return np.full(shape, np.nan, dtype=np.float32)

    def _label_of(self, example: Example, shown: slice) -> np.ndarray:
        value = self._value_of(example.fields)
        if self._problem == "regression":
            return np.array(value, dtype=np.float32)
        if self._problem == "single_label":
            return np.array(self._number_of(value))
        label = np.zeros(len(self._numbers), dtype=np.float32)
        label[[self._number_of(each) for each in value]] = 1
        return label

    def _value_of(self, fields: Mapping[str, Any]) -> Any:
        if self._label not in fields:
            raise DataError(f"{self.name} has no field {self._label}: it has {', '.join(fields) or 'none'}")
        return fields[self._label]

    def _number_of(self, name: str) -> int:
        if name not in self._numbers:
            raise DataError(f"{self.name} has the {self._label} {name!r}, which is none of {', '.join(self._numbers)}")
        return self._numbers[name]
