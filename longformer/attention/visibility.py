"""Which keys are hidden from which queries of a block: outside the band, padding, global keys in their own column."""

import torch
from torch import Tensor

from longformer.attention.band import Band, Block
from longformer.attention.global_keys import GlobalKeys
from longformer.attention.parts import BLOCK_ROWS, Part, computing_dtype

# Added to the score of a hidden key. Finite, so that a row with nothing to see stays a number, and so low that
# its probability is exactly 0 beside any visible key.
HIDDEN = -1e30


class Visibility:
    """Builds, part by part and block by block, the tensor that is added to the scores: 0 or `HIDDEN`."""

    def __init__(
        self, query: Tensor, band: Band, token_mask: Tensor | None, global_keys: GlobalKeys | None, *, causal: bool
    ) -> None:
        self.global_keys, self.causal = global_keys, causal
        self.zero = query.new_zeros((), dtype=computing_dtype(query))
        rows = torch.arange(BLOCK_ROWS, device=query.device)
        distance = torch.arange(BLOCK_ROWS + band.keys - 1, device=query.device) - rows[:, None]
        self.outside_band = self._hide((distance < 0) | (distance >= band.keys))
        self.padding = None if token_mask is None else self._hide(~token_mask)

    def of(self, part: Part, block: Block) -> Tensor:
        """Return (examples or 1, rows, global keys + band keys) to add to the scores of a part's block."""
        band_columns = slice(block.first_column, block.first_column + block.high - block.low)
        hidden = self.outside_band[None, : block.stop - block.start, band_columns]
        if self.padding is not None:
            hidden = hidden + self.padding[part.examples, part.lane][:, None, block.low : block.high]
        if self.global_keys is not None:
            in_own_column = self._of_global_keys(part, block, self.global_keys)
            hidden = torch.cat([in_own_column, hidden.expand(in_own_column.shape[0], -1, -1)], dim=-1)
        return hidden

    def _of_global_keys(self, part: Part, block: Block, global_keys: GlobalKeys) -> Tensor:
        """Return (examples, rows, global keys); a global key inside the band is hidden here, not there."""
        band = part.band
        rows = torch.arange(block.start, block.stop, device=self.zero.device) * part.lane.step + part.lane.start
        distance = global_keys.position[part.examples, None, :] - rows[:, None]
        inside = (distance >= -band.left * band.dilation) & (distance <= band.right * band.dilation)
        hidden = (inside & (distance % band.dilation == 0)) | ~global_keys.is_real[part.examples, None, :]
        return self._hide(hidden | (distance > 0) if self.causal else hidden)

    def _hide(self, hidden: Tensor) -> Tensor:
        """Turn True into `HIDDEN` and False into 0."""
        return torch.where(hidden, HIDDEN, self.zero)
