"""Which keys are hidden from which queries of a block: outside the band, padding, global keys in their own column."""

import torch
from torch import Tensor

from longformer.attention.band import Block
from longformer.attention.global_keys import GlobalKeys
from longformer.attention.parts import BLOCK_ROWS, Part, computing_dtype

# Added to the score of a hidden key. Finite, so that a row with nothing to see stays a number, and so low that
# its probability is exactly 0 beside any visible key.
HIDDEN = -1e30


class Visibility:
    """Builds, block by block, the tensor that is added to the scores: 0 or `HIDDEN`."""

    def __init__(
        self,
        part: Part,
        query: Tensor,
        token_mask: Tensor | None,
        global_keys: GlobalKeys | None,
        causal: bool,
    ) -> None:
        self.part, self.causal, self.global_keys = part, causal, global_keys
        self.zero = query.new_zeros((), dtype=computing_dtype(query))
        rows, columns = BLOCK_ROWS, BLOCK_ROWS + part.band.keys - 1
        distance = torch.arange(columns, device=query.device) - torch.arange(rows, device=query.device)[:, None]
        self.outside_band = self.hide((distance < 0) | (distance >= part.band.keys))
        self.padding = None
        if token_mask is not None:
            self.padding = self.hide(~token_mask[part.examples, part.lane])[:, None]

    def hide(self, hidden: Tensor) -> Tensor:
        """Turn True into `HIDDEN` and False into 0."""
        return torch.where(hidden, HIDDEN, self.zero)

    def of(self, block: Block) -> Tensor:
        """Return (examples or 1, rows, global keys + band keys) to add to the block's scores."""
        band_columns = slice(block.first_column, block.first_column + block.high - block.low)
        hidden = self.outside_band[None, : block.stop - block.start, band_columns]
        if self.padding is not None:
            hidden = hidden + self.padding[:, :, block.low : block.high]
        if self.global_keys is not None:
            in_own_column = self.of_global_keys(block, self.global_keys)
            hidden = torch.cat([in_own_column, hidden.expand(in_own_column.shape[0], -1, -1)], dim=-1)
        return hidden

    def of_global_keys(self, block: Block, global_keys: GlobalKeys) -> Tensor:
        """Return (examples, rows, global keys); a global key inside the band is hidden here, not there."""
        examples, lane, band = self.part.examples, self.part.lane, self.part.band
        rows = torch.arange(block.start, block.stop, device=self.zero.device) * lane.step + lane.start
        distance = global_keys.position[examples, None, :] - rows[:, None]
        inside = (distance >= -band.left * band.dilation) & (distance <= band.right * band.dilation)
        hidden = (inside & (distance % band.dilation == 0)) | ~global_keys.is_real[examples, None, :]
        return self.hide(hidden | (distance > 0) if self.causal else hidden)
