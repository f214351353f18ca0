"""The order of samples: a pure function of the global sample index. No state, no table, no ranks, no workers.

Each epoch is a permutation of all samples, made on the fly by a small Feistel network over the rectangle
`rows x columns` that just covers the epoch; the few cells outside the epoch are walked over.

Quality: a shuffle of the whole data set, not of a window. Every sample is as likely at every place, and neighbours
do not stay together, as far as statistics over thousands of epochs tell (tests/data_pipeline/test_order.py). It is
not cryptography, and of the n! orders only as many can occur as there are 64-bit keys.
"""

import hashlib
from functools import lru_cache
from math import isqrt

import numpy as np

_ROUNDS = 6
_MASK = (1 << 64) - 1
Key = tuple[int | str, ...]
"""What tells one permutation from another."""


def sample_at(position: int, *, epoch_size: int, seed: int) -> int:
    """Returns which sample stands at `position` of the endless training order.

    Every rank can compute every other rank's samples. Epochs follow each other without a gap.

    Args:
        position: global sample index since the start of training, >= 0.
        epoch_size: number of samples in the data set, > 0.
        seed: the run's data seed.

    Raises:
        ValueError: `position` is negative or `epoch_size` is not positive.
    """
    if position < 0 or epoch_size <= 0:
        raise ValueError(f"position must be >= 0 and epoch_size > 0, got {position} and {epoch_size}")
    epoch, offset = divmod(position, epoch_size)
    return _permuted(offset, size=epoch_size, keys=_round_keys((seed, epoch)))


def permutation(size: int, key: Key) -> np.ndarray:
    """Returns all of 0 .. size - 1 in the order of `key` (1-D int64), at once: what `_permuted` gives one by one.

    Raises:
        ValueError: `size` is not positive.
    """
    if size <= 0:
        raise ValueError(f"size must be > 0, got {size}")
    columns = isqrt(size - 1) + 1
    rows = -(-size // columns)
    pending = np.arange(size)
    indices = pending.copy()
    while len(pending):
        row, column = np.divmod(indices[pending].astype(np.uint64), np.uint64(columns))
        for number, round_key in enumerate(_round_keys(key)):
            if number % 2 == 0:
                row = (row + mixed_array(column ^ np.uint64(round_key)) % np.uint64(rows)) % np.uint64(rows)
            else:
                column = (column + mixed_array(row ^ np.uint64(round_key)) % np.uint64(columns)) % np.uint64(columns)
        indices[pending] = (row * np.uint64(columns) + column).astype(np.int64)
        pending = pending[indices[pending] >= size]
    return indices


def mixed_array(values: np.ndarray) -> np.ndarray:
    """Returns 64 well-mixed bits for every value of a uint64 array: `_mixed` at once."""
    values = values + np.uint64(0x9E3779B97F4A7C15)  # of arrays, wraps around as it should
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _permuted(index: int, *, size: int, keys: tuple[int, ...]) -> int:
    columns = isqrt(size - 1) + 1
    rows = -(-size // columns)
    while True:
        row, column = divmod(index, columns)
        for row_key, column_key in zip(keys[0::2], keys[1::2], strict=True):
            row = (row + _mixed(column ^ row_key)) % rows
            column = (column + _mixed(row ^ column_key)) % columns
        index = row * columns + column
        # A cell outside the epoch is sent on through the same permutation until it falls inside.
        # That keeps the whole a permutation (cycle walking), and less than one row lies outside.
        if index < size:
            return index


@lru_cache(maxsize=4)
def _round_keys(key: Key) -> tuple[int, ...]:
    digest = hashlib.blake2b(":".join(map(str, key)).encode(), digest_size=8 * _ROUNDS).digest()
    return tuple(int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS))


def _mixed(value: int) -> int:
    """Returns 64 well-mixed bits (the finalizer of splitmix64: Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
