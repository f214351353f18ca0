"""Which keys are hidden from which queries of a block: outside the band, padding, global keys in their own column."""

from typing import NamedTuple

import torch
from torch import Tensor

from longformer.attention.band import Band, Block
from longformer.attention.blocked.global_keys import GlobalKeys
from longformer.attention.blocked.partition import Part, block_rows, computing_dtype

# Added to the score of a hidden key. Finite, so that a row with nothing to see stays a number, and so low that
# its probability is exactly 0 beside any visible key.
HIDDEN = -1e30


class Hidden(NamedTuple):
    """Columns of a tile in which some keys are hidden."""

    columns: slice
    addend: Tensor
    """(examples or 1, rows or 1, columns): added to the scores, 0 or `HIDDEN`; columns named twice are added twice."""


class Visibility:
    """Tells, part by part and block by block, what is to be added to the scores where keys are hidden."""

    def __init__(
        self, query: Tensor, band: Band, token_mask: Tensor | None, global_keys: GlobalKeys | None, *, causal: bool
    ) -> None:
        self.global_keys, self.causal, self.band_keys = global_keys, causal, band.keys
        self.zero = query.new_zeros((), dtype=computing_dtype(query))
        rows = torch.arange(block_rows(band.left, band.right), device=query.device)
        distance = torch.arange(len(rows) + band.keys - 1, device=query.device) - rows[:, None]
        self.outside_band = self._hide((distance < 0) | (distance >= band.keys))
        self.padding = None if token_mask is None else self._hide(~token_mask)

    def of(self, part: Part, block: Block) -> list[Hidden]:
        """Returns what is hidden in the tile of a part's block: global keys first, then those of the band."""
        rows, hidden, first = block.stop - block.start, [], 0
        if self.global_keys is not None:
            addend = self._of_global_keys(part, block, self.global_keys)
            first = addend.shape[-1]
            hidden.append(Hidden(slice(0, first), addend))
        # Only the first and the last columns of the band are hidden from some of the rows.
        for low, high in ((0, rows - 1), (self.band_keys, self.band_keys + rows - 1)):
            low = max(low, block.first_column)
            high = min(high, block.first_column + block.high - block.low)
            if low < high:
                columns = slice(first + low - block.first_column, first + high - block.first_column)
                hidden.append(Hidden(columns, self.outside_band[None, :rows, low:high]))
        if self.padding is not None:
            addend = self.padding[part.examples, part.positions][:, None, block.low : block.high]
            hidden.append(Hidden(slice(first, first + block.high - block.low), addend))
        return hidden

    def _of_global_keys(self, part: Part, block: Block, global_keys: GlobalKeys) -> Tensor:
        """Returns (examples, rows, global keys); a global key inside the band is hidden here, not there."""
        band = part.band
        rows = (
            torch.arange(block.start, block.stop, device=self.zero.device) * part.positions.step + part.positions.start
        )
        distance = global_keys.position[part.examples, None, :] - rows[:, None]
        inside = (distance >= -band.left * band.dilation) & (distance <= band.right * band.dilation)
        hidden = (inside & (distance % band.dilation == 0)) | ~global_keys.is_real[part.examples, None, :]
        return self._hide(hidden | (distance > 0) if self.causal else hidden)

    def _hide(self, hidden: Tensor) -> Tensor:
        """Turns True into `HIDDEN` and False into 0."""
        return torch.where(hidden, HIDDEN, self.zero)
