"""Keys, values and the room for their gradients: what a tile needs to know about the keys it looks at."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class KeySet:
    """Keys and values (sequences, keys, head_dim) of a part, and room for their gradients in backward."""

    key: Tensor
    value: Tensor
    key_gradient: Tensor
    value_gradient: Tensor

    @classmethod
    def of(cls, key: Tensor, value: Tensor) -> "KeySet":
        return cls(key, value, torch.zeros_like(key), torch.zeros_like(value))

    def part(self, low: int, high: int) -> "KeySet":
        """Return views of the keys `low` to `high`."""
        keys = slice(low, high)
        return KeySet(self.key[:, keys], self.value[:, keys], self.key_gradient[:, keys], self.value_gradient[:, keys])
