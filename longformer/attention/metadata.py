"""What the positions of a batch hold: tokens or padding, and which tokens are global. Built once per batch.

Only the functions that find numbers in tensors wait for the device, and say so; what layers read is tensors.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from longformer.attention.fused.layout import BatchLayout


@dataclass(frozen=True)
class Packing:
    """The tokens of a padded batch one after another, and behind them one row that stands for all padding.

    Padded positions see nobody and nobody sees them, so where they start out equal they stay equal: one row tells
    what they all hold, exactly, and receives the sum of their gradients.
    """

    packed_index: Tensor
    """(batch, positions) long: the packed row of every position."""
    padded_index: Tensor
    """(packed,) long: the position, counted through the batch, of every packed row."""

    @classmethod
    def of(cls, token_mask: Tensor, count: int) -> "Packing":
        """Lays out a batch of `count` tokens by its mask, bool (batch, positions) with at least one padded position."""
        is_token = token_mask.flatten()
        tokens = is_token.nonzero_static(size=count).squeeze(1)
        first_padding = is_token.to(torch.uint8).argmin()
        packed_index = (is_token.cumsum(0) - 1).masked_fill(~is_token, count)
        return cls(packed_index.view_as(token_mask), torch.cat([tokens, first_padding[None]]))

    def pack(self, padded: Tensor) -> Tensor:
        """Returns (batch, positions, width) as (packed, width)."""
        return padded.flatten(0, 1).index_select(0, self.padded_index)

    def unpack(self, packed: Tensor) -> Tensor:
        """Returns (packed, width) as (batch, positions, width)."""
        return packed.index_select(0, self.packed_index.flatten()).unflatten(0, self.packed_index.shape)


@dataclass(frozen=True)
class GlobalTokens:
    """The global tokens of every example, filled up to the largest number among them."""

    mask: Tensor
    """(batch, positions) bool."""
    positions: Tensor
    """(batch, count) long: where they stand, in order; free slots name other positions, each at most once."""
    is_real: Tensor
    """(batch, count) bool: False for a free slot."""

    @classmethod
    def of(cls, mask: Tensor, count: int) -> "GlobalTokens":
        """Finds the tokens of a (batch, positions) mask; `count` is the largest number in an example, at least 1."""
        positions = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
        return cls(mask, positions, mask.gather(1, positions))

    @classmethod
    def find(cls, global_mask: Tensor, token_mask: Tensor | None) -> "GlobalTokens | None":
        """Finds the global tokens by masks, bool (batch, positions); padding is never global. None = there are none.

        Waits for the device, to learn how many there are.
        """
        if token_mask is not None:
            global_mask = global_mask & token_mask
        count = int(global_mask.sum(1).max())
        return cls.of(global_mask, count) if count else None

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the hidden states (batch, count, width) of the global tokens in (batch, positions, width)."""
        return tensor.gather(1, self._index(tensor))

    def scatter(self, tensor: Tensor, values: Tensor) -> Tensor:
        """Returns (batch, positions, width) with those of the global tokens replaced by (batch, count, width)."""
        # A free slot puts back what it finds, so that the number of slots need not depend on the example.
        # Under autocast both come from products in half precision, to which biases in float32 may have been added.
        values = torch.where(self.is_real[:, :, None], values.to(tensor.dtype), self.gather(tensor))
        return tensor.scatter(1, self._index(tensor), values)

    def _index(self, tensor: Tensor) -> Tensor:
        return self.positions[:, :, None].expand(-1, -1, tensor.shape[-1])


@dataclass(frozen=True)
class AttentionMetadata:
    """What every layer must know about a batch; each part is None where it has nothing to say."""

    token_mask: Tensor | None = None
    """(batch, positions) bool: False for padding; None when there is none."""
    global_tokens: GlobalTokens | None = None
    """The global tokens; None when there are none, and then nothing is computed for them."""
    packing: Packing | None = None
    """How hidden states stand while padding is taken out; None: as (batch, positions, width)."""
    layout: BatchLayout | None = field(init=False)
    """The two masks as the fused kernels read them; None when every token is ordinary."""

    def __post_init__(self) -> None:
        positions = None if self.global_tokens is None else self.global_tokens.positions
        # The way a frozen value sets a field of its own making.
        object.__setattr__(self, "layout", BatchLayout.of(self.token_mask, self.global_mask, positions))

    @classmethod
    def of(cls, token_mask: Tensor | None, global_mask: Tensor | None) -> "AttentionMetadata":
        """Describes a batch by its masks, bool (batch, positions); a padded position is never global.

        Waits for the device, to learn whether there is padding and how many global tokens there are.
        """
        if token_mask is not None and bool(token_mask.all()):
            token_mask = None
        return cls(token_mask, None if global_mask is None else GlobalTokens.find(global_mask, token_mask))

    @property
    def global_mask(self) -> Tensor | None:
        """(batch, positions) bool, or None without global tokens."""
        return None if self.global_tokens is None else self.global_tokens.mask

    def unpack(self, packed: Tensor) -> Tensor:
        """Returns hidden states as (batch, positions, width), padding included."""
        return packed if self.packing is None else self.packing.unpack(packed)

    def packed_positions(self, positions: Tensor) -> Tensor:
        """Returns the packed indices of `positions`, which are counted through the whole padded batch."""
        return positions if self.packing is None else self.packing.packed_index.flatten()[positions]

    def pack(self, padded: Tensor) -> Tensor:
        """Undos `unpack`."""
        return padded if self.packing is None else self.packing.pack(padded)
