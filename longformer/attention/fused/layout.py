"""What every layer needs to know about a batch's sequences and global tokens, worked out once per batch. No Triton."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

PADDING, ORDINARY, GLOBAL = 0, 1, 2


@dataclass(frozen=True)
class BatchLayout:
    """Padding, global tokens and the bounds of packed sequences in the form that the kernels read.

    Built once per batch, it serves every layer. Nothing here waits for the device. A packed batch is one row of tokens;
    what stands behind its last sequence is padding, and counts as one more sequence that sees nothing.
    """

    extent: Tensor | None
    """(sequences, 2) int32: the first real position and one past the last; (0, 0) for a sequence of padding. None: all
    positions of a batch that is not packed are real."""
    starts: Tensor | None = None
    """(sequences + 1,) int32: where each sequence of a packed batch begins, and how many tokens there are."""
    max_seqlen: int = 0
    """Length of the longest sequence of a packed batch; 0 where the batch is padded."""
    state: Tensor | None = None
    """(tokens,) int8: PADDING, ORDINARY or GLOBAL, one sequence after another; None: all are ordinary."""
    next_excluded: Tensor | None = None
    """(tokens + 1,) int32: the first token from here on that is not ORDINARY; `tokens` if none; with the state."""
    global_index: Tensor | None = None
    """(sequences, max_count) int32: positions of the global tokens, free slots last; None without any."""
    global_count: Tensor | None = None
    """(sequences,) int32: how many of the slots are taken."""

    @property
    def sequences(self) -> int | None:
        """How many a packed batch has, with what stands behind the last one; None where the batch is padded."""
        return None if self.starts is None else self.starts.shape[0] - 1

    @classmethod
    def of(
        cls, token_mask: Tensor | None, global_mask: Tensor | None, global_index: Tensor | None
    ) -> "BatchLayout | None":
        """Returns the layout of a padded batch, or None when every token is ordinary.

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
        state = state.flatten()
        extent = None if token_mask is None else _extent(real)
        return cls(extent, None, 0, state, _next_excluded(state), index, count)

    @classmethod
    def of_packed(
        cls,
        tokens: int,
        cu_seqlens: Tensor,
        max_seqlen: int,
        global_mask: Tensor | None,
        global_index: Tensor | None,
        global_count: Tensor | None,
    ) -> "BatchLayout":
        """Returns the layout of a packed batch.

        Args:
            tokens: how many there are, with those behind the last sequence; of these at most `max_seqlen`.
            cu_seqlens: (sequences + 1,) integers, where each sequence begins and the last one ends.
            max_seqlen: length of the longest sequence, or more.
            global_mask: (tokens,) bool, True = global token; None = none is.
            global_index: (sequences, max_count) integers, counted within the sequence; free slots last; with the mask.
            global_count: (sequences,) integers, how many are taken; with the mask.
        """
        cu_seqlens = cu_seqlens.to(torch.int32)
        lengths = functional.pad(cu_seqlens.diff(), (0, 1))
        extent, starts = functional.pad(lengths[:, None], (1, 0)), functional.pad(cu_seqlens, (0, 1), value=tokens)
        if global_mask is None or global_index is None or global_count is None:
            return cls(extent, starts, max_seqlen)
        state = global_mask.to(torch.int8) + ORDINARY
        index = functional.pad(global_index, (0, 0, 0, 1)).to(torch.int32)
        count = functional.pad(global_count, (0, 1)).to(torch.int32)
        return cls(extent, starts, max_seqlen, state, _next_excluded(state), index, count)

    def without_globals(self) -> "BatchLayout":
        """Returns the layout that tells padding only."""
        if self.starts is not None:
            return BatchLayout(self.extent, self.starts, self.max_seqlen)
        return replace(self, global_index=None, global_count=None)

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the tensors in order, without those that are None."""
        every = (self.extent, self.starts, self.state, self.next_excluded, self.global_index, self.global_count)
        return tuple(tensor for tensor in every if tensor is not None)

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], max_seqlen: int) -> "BatchLayout | None":
        """Undos `tensors`; nothing gives None."""
        if not tensors:
            return None
        rest = list(tensors)
        extent = rest.pop(0) if rest[0].dim() == 2 else None
        starts = rest.pop(0) if max_seqlen else None
        return cls(extent, starts, max_seqlen, *rest)


def _next_excluded(state: Tensor) -> Tensor:
    # One more token of padding at the end, so that there is always a next one.
    state = functional.pad(state, (0, 1), value=PADDING)
    tokens = torch.arange(state.shape[0], dtype=torch.int32, device=state.device)
    excluded = torch.where(state == ORDINARY, torch.iinfo(torch.int32).max, tokens)
    return excluded.flip(0).cummin(0).values.flip(0).contiguous()


def _extent(real: Tensor) -> Tensor:
    positions = torch.arange(real.shape[1], dtype=torch.int32, device=real.device)
    end = torch.where(real, positions + 1, 0).amax(1)
    first = torch.where(real, positions, end[:, None]).amin(1)
    return torch.stack((first, end), 1).to(torch.int32)
