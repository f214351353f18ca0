"""Taking padding out of a batch for everything that works position by position, and putting it back."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """The tokens of a padded batch one after another, and behind them one row that stands for all padding.

    Padded positions see nobody and nobody sees them, so where they start out equal they stay equal: one row tells
    what they all hold, exactly, and receives the sum of their gradients.
    """

    home: Tensor
    """(batch, positions) long: the packed row of every position."""
    rows: Tensor
    """(packed,) long: the position, counted through the batch, of every packed row."""

    @classmethod
    def of(cls, token_mask: Tensor) -> "Packing":
        """Lay out a batch by its mask, bool (batch, positions) with at least one padded position.

        Waits for the device, to learn how many tokens there are.
        """
        is_token = token_mask.flatten()
        tokens = is_token.nonzero().squeeze(1)
        first_padding = is_token.to(torch.uint8).argmin()
        home = (is_token.cumsum(0) - 1).masked_fill(~is_token, tokens.shape[0])
        return cls(home.view_as(token_mask), torch.cat([tokens, first_padding[None]]))

    def pack(self, padded: Tensor) -> Tensor:
        """Return (batch, positions, width) as (packed, width)."""
        return padded.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """Return (packed, width) as (batch, positions, width)."""
        return packed.index_select(0, self.home.flatten()).unflatten(0, self.home.shape)
