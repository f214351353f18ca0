"""What every layer needs to know about a batch's padding and global tokens, worked out once per batch. No Triton."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING, ORDINARY, GLOBAL = 0, 1, 2


@dataclass(frozen=True)
class BatchLayout:
    """Padding and global tokens of one batch in the form that the kernels read.

    Build it once per batch with `of` and hand it to every layer. Only `of` waits for the device (to learn the
    largest number of global tokens), so build it outside compiled code.
    """

    state: Tensor
    """(batch, positions) int8: PADDING, ORDINARY or GLOBAL."""
    next_excluded: Tensor
    """(batch, positions + 1) int32: the first position from here on that is not ORDINARY; `positions` if none."""
    extent: Tensor
    """(batch, 2) int32: the first real position and one past the last; (0, 0) for a row of padding."""
    global_index: Tensor | None
    """(batch, max_globals) int32: positions of the global tokens in order, the rest 0; None without any."""
    global_count: Tensor | None
    """(batch,) int32."""

    @classmethod
    def of(cls, token_mask: Tensor | None, global_mask: Tensor | None) -> "BatchLayout | None":
        """Return the layout of a batch, or None when every token is ordinary by construction.

        Args:
            token_mask: (batch, positions) bool, True = real token; None = all are real.
            global_mask: (batch, positions) bool, True = global token (padding is never global); None = none is.
        """
        if token_mask is not None:
            real = token_mask
        elif global_mask is not None:
            real = torch.ones_like(global_mask)
        else:
            return None
        is_global = torch.zeros_like(real) if global_mask is None else global_mask & real
        state = real.to(torch.int8) + is_global.to(torch.int8)
        positions = torch.arange(real.shape[1], dtype=torch.int32, device=real.device)
        index, count = None, None
        if global_mask is not None:
            index, count = _compact(is_global, positions)
        return cls(state, _next_excluded(state), _extent(real, positions), index, count)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors in order, without those that are None."""
        every = (self.state, self.next_excluded, self.extent, self.global_index, self.global_count)
        return tuple(tensor for tensor in every if tensor is not None)

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> "BatchLayout | None":
        """Undo `tensors`; nothing gives None."""
        return cls(*tensors, *(None,) * (5 - len(tensors))) if tensors else None


def _next_excluded(state: Tensor) -> Tensor:
    # One more token of padding at the end, so that there is always a next one.
    state = torch.nn.functional.pad(state, (0, 1), value=PADDING)
    positions = torch.arange(state.shape[1], dtype=torch.int32, device=state.device)
    excluded = torch.where(state == ORDINARY, torch.iinfo(torch.int32).max, positions)
    return excluded.flip(1).cummin(1).values.flip(1).contiguous()


def _extent(real: Tensor, positions: Tensor) -> Tensor:
    end = torch.where(real, positions + 1, 0).amax(1)
    first = torch.where(real, positions, end[:, None]).amin(1)
    return torch.stack((first, end), 1).to(torch.int32)


def _compact(is_global: Tensor, positions: Tensor) -> tuple[Tensor | None, Tensor | None]:
    count = is_global.sum(1, dtype=torch.int32)
    largest = int(count.max())
    if largest == 0:
        return None, None
    slots = torch.where(is_global, is_global.cumsum(1) - 1, largest)
    index = positions.new_zeros(is_global.shape[0], largest + 1)
    index.scatter_(1, slots, positions.expand_as(slots))
    return index[:, :largest].contiguous(), count
