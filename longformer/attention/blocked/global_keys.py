"""The keys that every query sees: gathered once per call, their gradients collected over all parts."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longformer.attention.blocked.partition import Part, Scratch, computing_dtype
from longformer.attention.projections import KeyValue

# Global keys take columns by so many: rows of scores that begin at odd places halve the speed of the products that
# write them (measured on a CPU: 69 against 144 GFLOP/s).
COLUMNS = 16


@dataclass(frozen=True)
class GlobalKeys:
    """The global keys of every example, gathered to the front and filled up to a multiple of `COLUMNS`.

    `position` and `is_real` are (batch, count); keys and gradients (batch, count, heads, head_dim).
    """

    position: Tensor
    is_real: Tensor
    keys: KeyValue
    gradients: KeyValue

    @classmethod
    def gather(cls, key: Tensor, value: Tensor, global_mask: Tensor, token_mask: Tensor | None) -> "GlobalKeys | None":
        """Finds and copies the global keys, or returns None when there are none; a padded position is never one."""
        is_global = global_mask if token_mask is None else global_mask & token_mask
        count = int(is_global.sum(1).max()) if is_global.numel() else 0
        if count == 0:
            return None
        count = min(-(-count // COLUMNS) * COLUMNS, is_global.shape[1])
        position = is_global.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
        index = position[:, :, None, None].expand(-1, -1, *key.shape[2:])
        keys = KeyValue(key.gather(1, index), value.gather(1, index))
        precision = computing_dtype(key)
        gradients = KeyValue(*(torch.zeros_like(tensor, dtype=precision) for tensor in keys))
        return cls(position, is_global.gather(1, position), keys, gradients)

    def take(self, part: Part, scratch: Scratch) -> KeyValue:
        """Returns what a part's queries see: the same keys in every stride group."""
        everywhere = self._everywhere(part)
        return KeyValue(
            everywhere.take(self.keys.key, "global key", scratch),
            everywhere.take(self.keys.value, "global value", scratch),
        )

    def add_gradients(self, part: Part, gradients: KeyValue) -> None:
        """Collects the gradients that a part found."""
        everywhere = self._everywhere(part)
        everywhere.add(gradients.key, self.gradients.key)
        everywhere.add(gradients.value, self.gradients.value)

    def scatter_gradients(self, key_gradient: Tensor, value_gradient: Tensor) -> None:
        """Adds the collected gradients to those of all keys and values, (batch, positions, heads, head_dim)."""
        index = self.position[:, :, None, None].expand_as(self.keys.key)
        key_gradient.scatter_add_(1, index, self.gradients.key.to(key_gradient.dtype))
        value_gradient.scatter_add_(1, index, self.gradients.value.to(value_gradient.dtype))

    def _everywhere(self, part: Part) -> Part:
        return replace(part, positions=slice(0, self.position.shape[1], 1))
