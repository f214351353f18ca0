"""Rows of hidden states that a CPU computes at a time."""

from collections.abc import Iterator

from torch import Tensor

# Rows whose 3,072 wide features a processor's last cache holds. Fewer make products with short sums, which are slow.
ROWS = 1024


def some_rows(rows: Tensor) -> Iterator[slice]:
    """Cut (count, width) into rows that are computed at a time."""
    for first in range(0, rows.shape[0], ROWS):
        yield slice(first, first + ROWS)
