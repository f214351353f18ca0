"""What a layer projects for attention: query, key and value apart, or packed in one tensor by one product."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class KeyValue(NamedTuple):
    """Keys and values, or their gradients: (sequences, length, head_dim) each."""

    key: Tensor
    value: Tensor

    def between(self, low: int, high: int) -> "KeyValue":
        """Returns views of the positions `low` to `high`."""
        return KeyValue(self.key[:, low:high], self.value[:, low:high])


def separate(projections: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns query, key and value, each (batch, positions, heads, head_dim), without copying anything.

    Args:
        projections: the three of them, or one packed (batch, positions, 3, heads, head_dim).
    """
    return projections[0].unbind(2) if len(projections) == 1 else tuple(projections)
