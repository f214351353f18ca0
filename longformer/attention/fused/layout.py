"""What every layer needs to know about a batch's padding and global tokens, worked out once per batch. No Triton."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING, ORDINARY, GLOBAL = 0, 1, 2


@dataclass(frozen=True)
class BatchLayout:
    """Padding and global tokens of one batch in the form that the kernels read.

    Built once per batch, it serves every layer. Nothing here waits for the device.
    """

    state: Tensor
    """(batch, positions) int8: PADDING, ORDINARY or GLOBAL."""
    next_excluded: Tensor
    """(batch, positions + 1) int32: the first position from here on that is not ORDINARY; `positions` if none."""
    extent: Tensor
    """(batch, 2) int32: the first real position and one past the last; (0, 0) for a row of padding."""
    global_index: Tensor | None
    """(batch, max_count) int32: positions of the global tokens, free slots last; None without any."""
    global_count: Tensor | None
    """(batch,) int32: how many of the slots are taken."""

    @classmethod
    def of(
        cls, token_mask: Tensor | None, global_mask: Tensor | None, global_index: Tensor | None
    ) -> "BatchLayout | None":
        """Returns the layout of a batch, or None when every token is ordinary.

        Args:
            token_mask: (batch, positions) bool, True = real token; None = all are real.
            global_mask: (batch, positions) bool, True = global token, never on padding; None = none is.
            global_index: (batch, max_count) integers: indices of the global tokens, free slots last; with the mask.
        """
        if token_mask is not None:
            real = token_mask
        elif global_mask is not None:
            real = torch.ones_like(global_mask)
        else:
            return None
        state, index, count = real.to(torch.int8), None, None
        if global_mask is not None and global_index is not None:
            state = state + global_mask.to(torch.int8)
            index, count = global_index.to(torch.int32), global_mask.sum(1, dtype=torch.int32)
        return cls(state, _next_excluded(state), _extent(real), index, count)

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the tensors in order, without those that are None."""
        every = (self.state, self.next_excluded, self.extent, self.global_index, self.global_count)
        return tuple(tensor for tensor in every if tensor is not None)

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> "BatchLayout | None":
        """Undos `tensors`; nothing gives None."""
        return cls(*tensors, *(None,) * (5 - len(tensors))) if tensors else None


def _next_excluded(state: Tensor) -> Tensor:
    # One more token of padding at the end, so that there is always a next one.
    state = torch.nn.functional.pad(state, (0, 1), value=PADDING)
    positions = torch.arange(state.shape[1], dtype=torch.int32, device=state.device)
    excluded = torch.where(state == ORDINARY, torch.iinfo(torch.int32).max, positions)
    return excluded.flip(1).cummin(1).values.flip(1).contiguous()


def _extent(real: Tensor) -> Tensor:
    positions = torch.arange(real.shape[1], dtype=torch.int32, device=real.device)
    end = torch.where(real, positions + 1, 0).amax(1)
    first = torch.where(real, positions, end[:, None]).amin(1)
    return torch.stack((first, end), 1).to(torch.int32)
