"""Sequences for learning labels: a text each, between the begin and the end token, and its label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest, room_for_text
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.shuffle import ShuffledExamples
from data_pipeline.shards.prepared import Split


class LabelledSequences:
    """One example per sequence: {"input_ids", "attention_mask"}, both (length,) int64, and "labels".

    Labels are the number of the label's class (int64, no dimension) where there are `classes`; else what the field
    holds: a whole number (int64), a number (float32), or a list of them (1-D). The first tokens of a longer text are
    read. A damaged example is begin and end token only, and its class IGNORED.

    Args:
        text: the name of the token ids.
        label: the field.
        classes: the values of the field, in the order of their numbers; None: the field holds numbers to be predicted.

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
        classes: Sequence[str | int] | None,
        sequence_length: int,
        seed: int,
    ) -> None:
        self._room = room_for_text(sequence_length)
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
            None if classes is None else list(classes),
            sequence_length,
            seed,
        )
        self.padding: Mapping[str, int | float] = {"input_ids": self._special.padding}
        self._split = split
        self._text = text
        self._label = label
        self._classes = None if classes is None else list(classes)
        self._line = ShuffledExamples(split, seed)
        self.per_epoch = self._line.length

    def sequence(self, position: int) -> NamedArrays:
        """Returns the sequence.

        Raises:
            DataError: the example has no such label.
        """
        (piece,) = self._line.pieces(position, position + 1)
        return self.example(piece.shard, piece.example)

    def example(self, shard: int, example: int) -> NamedArrays:
        """Returns the sequence of one example of a shard, for reading a split in its own order."""
        read = self._split.read(shard, example)
        if read is None:
            text, label = np.empty(0, dtype=np.int64), np.array(IGNORED)
        else:
            text = read.tokens[self._text][: self._room].astype(np.int64)
            label = self._label_of(read.fields)
        tokens = np.concatenate([[self._special.begin], text, [self._special.end]])
        return {"input_ids": tokens, "attention_mask": np.ones(len(tokens), dtype=np.int64), "labels": label}

    def length(self, position: int) -> int:
        """Returns the length, begin and end token included."""
        (piece,) = self._line.pieces(position, position + 1)
        return min(self._room, int(self._split.lengths(piece.shard, self._text)[piece.example])) + 2

    def longest(self, per_epoch: int) -> None:
        """Returns None: the number of sequences is that of the examples."""

    def _label_of(self, fields: Mapping[str, Any]) -> np.ndarray:
        if self._label not in fields:
            raise DataError(f"{self.name} has no field {self._label}: it has {', '.join(fields) or 'none'}")
        value = fields[self._label]
        if self._classes is None:
            array = np.array(value)
            return array.astype(np.float32) if array.dtype.kind == "f" else array
        if value not in self._classes:
            raise DataError(f"{self.name} has the {self._label} {value!r}, which is none of {self._classes}")
        return np.array(self._classes.index(value))
