"""What the positions of a batch hold: tokens or padding, sequences, and which tokens are global. Built once per batch.

Only the functions that count in a batch themselves wait for the device; what layers read is tensors and given numbers.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from longformer.attention.fused.layout import BatchLayout


@dataclass(frozen=True)
class Packing:
    """The sequences of a batch one after another, and behind them one row that stands for all padding, if there is any.

    Padded positions see nobody and nobody sees them, so where they start out equal they stay equal: one row tells
    what they all hold, exactly, and receives the sum of their gradients.
    """

    cu_seqlens: Tensor
    """(sequences + 1,) int32: the packed rows where each sequence begins and the last one ends."""
    max_seqlen: int
    """Length of the longest sequence."""
    packed_index: Tensor
    """(batch, positions) long: the packed row of every position."""
    padded_index: Tensor
    """(packed,) long: the position, counted through the batch, of every packed row."""

    @classmethod
    def of(cls, is_token: Tensor, is_first: Tensor, *, tokens: int, sequences: int, max_seqlen: int) -> "Packing":
        """Lays out a batch whose numbers are known.

        Args:
            is_token: (batch, positions) bool, False for padding.
            is_first: (batch, positions) bool, True for the first token of a sequence; its others follow it at once.
            tokens: number of tokens.
            sequences: number of sequences.
            max_seqlen: length of the longest one.
        """
        flat = is_token.flatten()
        rows = flat.cumsum(0) - 1
        padded_index = torch.nonzero_static(flat, size=tokens).squeeze(1)
        if tokens < flat.shape[0]:
            padded_index = torch.cat([padded_index, flat.to(torch.uint8).argmin()[None]])
        first = torch.nonzero_static(is_first.flatten(), size=sequences).squeeze(1)
        cu_seqlens = functional.pad(rows[first], (0, 1), value=tokens).to(torch.int32)
        return cls(cu_seqlens, max_seqlen, rows.masked_fill(~flat, tokens).view_as(is_token), padded_index)

    @property
    def members(self) -> Tensor:
        """Which of the packed rows belong to each sequence, (sequences, packed) bool."""
        row = torch.arange(self.padded_index.shape[0], device=self.cu_seqlens.device)
        return (row >= self.cu_seqlens[:-1, None]) & (row < self.cu_seqlens[1:, None])

    @property
    def is_even(self) -> bool:
        """Whether at least half would be tokens where every sequence was padded to the longest."""
        return (self.cu_seqlens.shape[0] - 1) * self.max_seqlen <= 2 * self.padded_index.shape[0]

    def by_sequence(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (packed, width) as (sequences, max_seqlen, width), and which of that are tokens, bool."""
        place = torch.arange(self.max_seqlen, device=self.cu_seqlens.device)
        is_token = place < self.cu_seqlens.diff()[:, None]
        rows = self.cu_seqlens[:-1, None] + place * is_token
        return hidden.index_select(0, rows.flatten()).unflatten(0, rows.shape), is_token

    def pack(self, padded: Tensor) -> Tensor:
        """Returns (batch, positions, ...) as (packed, ...)."""
        return padded.flatten(0, 1).index_select(0, self.padded_index)

    def unpack(self, packed: Tensor) -> Tensor:
        """Returns (packed, ...) as (batch, positions, ...)."""
        return packed.index_select(0, self.packed_index.flatten()).unflatten(0, self.packed_index.shape)


@dataclass(frozen=True)
class GlobalTokens:
    """The global tokens of every sequence, filled up to the largest number among them."""

    mask: Tensor
    """(batch, positions) bool; (1, packed) in a packed batch."""
    positions: Tensor
    """(sequences, count) long: where they stand in their sequence, in order; 0 in a free slot."""
    is_real: Tensor
    """(sequences, count) bool: False for a free slot."""
    slot_tokens: Tensor
    """(sequences, count) long: the same, counted through the batch; a free slot names another global token."""
    tokens: Tensor
    """(all global tokens,) long: where they stand, counted through the batch."""
    slots: Tensor
    """(all global tokens,) long: their slots, counted through the sequences."""

    @classmethod
    def of(cls, mask: Tensor, count: int, total: int, cu_seqlens: Tensor | None = None) -> "GlobalTokens":
        """Finds the global tokens of a batch whose numbers are known.

        Args:
            mask: (batch, positions) bool; (1, packed) in a packed batch.
            count: the largest number in a sequence, at least 1.
            total: their number.
            cu_seqlens: where the sequences of a packed batch begin and end, (sequences + 1,).
        """
        if cu_seqlens is None:
            cu_seqlens = torch.arange(mask.shape[0] + 1, device=mask.device) * mask.shape[1]
        number = functional.pad(mask.flatten().cumsum(0), (1, 0))[cu_seqlens.long()]
        numbers = number[:-1, None] + torch.arange(count, device=mask.device)
        is_real = numbers < number[1:, None]
        tokens = torch.nonzero_static(mask.flatten(), size=total).squeeze(1)
        slot_tokens = tokens[numbers.clamp(max=total - 1)]
        positions = torch.where(is_real, slot_tokens - cu_seqlens[:-1, None], 0)
        slots = torch.nonzero_static(is_real.flatten(), size=total).squeeze(1)
        return cls(mask, positions, is_real, slot_tokens, tokens, slots)

    @classmethod
    def find(cls, mask: Tensor, cu_seqlens: Tensor | None = None) -> "GlobalTokens | None":
        """Finds the global tokens as `of`, and waits for the device to count them. None = there are none."""
        if cu_seqlens is None:
            counts = mask.sum(1)
        else:
            mask = mask & (torch.arange(mask.shape[1], device=mask.device) < cu_seqlens[-1])
            counts = functional.pad(mask.flatten().cumsum(0), (1, 0))[cu_seqlens.long()].diff()
        count, total = torch.stack([counts.max(), counts.sum()]).tolist()
        return cls.of(mask, count, total, cu_seqlens) if count else None

    def gather(self, hidden: Tensor) -> Tensor:
        """Returns the hidden states (sequences, count, width) of the global tokens; free slots hold those of others."""
        rows = hidden.flatten(0, -2).index_select(0, self.slot_tokens.flatten())
        return rows.unflatten(0, self.slot_tokens.shape)

    def scatter(self, hidden: Tensor, values: Tensor) -> Tensor:
        """Returns `hidden`, (..., width), the states of the global tokens replaced by (sequences, count, width)."""
        # Under autocast both come from products in half precision, to which biases in float32 may have been added.
        values = values.flatten(0, 1).index_select(0, self.slots).to(hidden.dtype)
        return hidden.flatten(0, -2).index_copy(0, self.tokens, values).view_as(hidden)


@dataclass(frozen=True)
class AttentionMetadata:
    """What every layer must know about a batch; each part is None where it has nothing to say."""

    token_mask: Tensor | None = None
    """(batch, positions) bool: False for padding; None when there is none, or it has been taken out."""
    global_tokens: GlobalTokens | None = None
    """The global tokens; None when there are none, and then nothing is computed for them."""
    packing: Packing | None = None
    """How hidden states stand without padding, and which sequences they belong to; None: as (batch, positions, width),
    every row a sequence."""
    layout: BatchLayout | None = field(init=False)
    """All this as the fused kernels read it; None when every token is ordinary."""

    def __post_init__(self) -> None:
        layout: BatchLayout | None
        if (packing := self.packing) is not None:
            rows = packing.padded_index.shape[0]
            layout = packed_layout(rows, packing.cu_seqlens, packing.max_seqlen, self.global_tokens)
        else:
            positions = None if self.global_tokens is None else self.global_tokens.positions
            layout = BatchLayout.of(self.token_mask, self.global_mask, positions)
        # The way a frozen value sets a field of its own making.
        object.__setattr__(self, "layout", layout)

    @classmethod
    def of(cls, token_mask: Tensor | None, global_mask: Tensor | None) -> "AttentionMetadata":
        """Describes a batch by its masks, bool (batch, positions); a padded position is never global.

        Waits for the device, to learn whether there is padding and how many global tokens there are.
        """
        if token_mask is not None and bool(token_mask.all()):
            token_mask = None
        if token_mask is not None and global_mask is not None:
            global_mask = global_mask & token_mask
        return cls(token_mask, None if global_mask is None else GlobalTokens.find(global_mask))

    @property
    def global_mask(self) -> Tensor | None:
        """(batch, positions) bool, (1, packed) in a packed batch, or None without global tokens."""
        return None if self.global_tokens is None else self.global_tokens.mask

    def pack(self, padded: Tensor) -> Tensor:
        """Returns (batch, positions, width) as layers take it: (packed, width) where there is a packing."""
        return padded if self.packing is None else self.packing.pack(padded)

    def unpack(self, hidden: Tensor) -> Tensor:
        """Undos `pack`, padding included."""
        return hidden if self.packing is None else self.packing.unpack(hidden)

    def packed_positions(self, positions: Tensor) -> Tensor:
        """Returns the packed indices of `positions`, which are counted through the whole padded batch."""
        return positions if self.packing is None else self.packing.packed_index.flatten()[positions]


def packed_layout(tokens: int, cu_seqlens: Tensor, max_seqlen: int, global_tokens: GlobalTokens | None) -> BatchLayout:
    """Returns the layout of a packed batch of `tokens` rows; see `Packing` and `BatchLayout`."""
    if global_tokens is None:
        return BatchLayout.of_packed(tokens, cu_seqlens, max_seqlen, None, None, None)
    counts = global_tokens.is_real.sum(1)
    return BatchLayout.of_packed(
        tokens, cu_seqlens, max_seqlen, global_tokens.mask.flatten(), global_tokens.positions, counts
    )
