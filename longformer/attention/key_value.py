"""Keys with their values, or the gradients of both."""

from typing import NamedTuple

from torch import Tensor


class KeyValue(NamedTuple):
    """Keys and values, or their gradients: (sequences, length, head_dim) each."""

    key: Tensor
    value: Tensor

    def between(self, low: int, high: int) -> "KeyValue":
        """Return views of the positions `low` to `high`."""
        return KeyValue(self.key[:, low:high], self.value[:, low:high])
