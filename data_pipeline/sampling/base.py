"""Sequences: what a model reads as one sample, by its position in an endless order. Nothing else decides it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.tokenizers.tokenizer import TokenizerRecord

Sequence = dict[str, np.ndarray]
"""Named arrays of any type: a number, or an array whose dimensions may differ in size from sequence to sequence."""


class Sequences(Protocol):
    """An endless order of sequences."""

    tokenizer: TokenizerRecord
    name: str
    """What the sequences are made of, for messages."""
    fingerprint: str
    """Of the data and of everything that decides which sequence stands where (SHA-256, hexadecimal)."""
    per_epoch: int
    """Sequences in one epoch."""
    padding: Mapping[str, int | float]
    """What stands behind the end of a shorter array in a batch; 0 where a name is absent."""

    def sequence(self, position: int) -> Sequence:
        """Returns the sequence at a position of the order, >= 0."""
        ...

    def length(self, position: int) -> int:
        """Returns about how long that sequence is, without reading it: sequences are gathered by it."""
        ...

    def longest(self, per_epoch: int) -> int | None:
        """Returns the longest length that gives an epoch `per_epoch` sequences; None where it is not chosen."""
        ...


def check_enough(sequences: Sequences, *, global_batch_size: int) -> None:
    """Raises DataError when an epoch has fewer sequences than one global batch, with the numbers that would do.

    The number of shards sets no such bound: every rank reads from all shards, so one is enough for any number of ranks.
    """
    if sequences.per_epoch >= global_batch_size:
        return
    remedies = ["prepare more text"]
    longest = sequences.longest(global_batch_size)
    if longest is not None:
        remedies.append(f"use sequences of at most {longest:,}")
    if sequences.per_epoch:
        remedies.append(f"a batch of at most {sequences.per_epoch:,}")
    raise DataError(
        f"{sequences.name} gives {sequences.per_epoch:,} sequences an epoch, fewer than one global batch of "
        f"{global_batch_size:,}: {' or '.join(remedies)}"
    )


def room_for_text(sequence_length: int) -> int:
    """Returns what the begin and the end token leave of a sequence.

    Raises:
        ValueError: nothing.
    """
    if sequence_length < 3:
        raise ValueError(f"sequence_length must be at least 3, got {sequence_length}")
    return sequence_length - 2


def digest(*parts: object) -> str:
    """Returns the SHA-256 (hexadecimal) of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
