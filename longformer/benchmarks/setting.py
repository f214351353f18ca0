"""What an attention benchmark attends to: shape, pattern, device and precision."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longformer.attention import Band

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From query, key and value, each (batch, positions, heads, head_dim), to the attended values, shaped alike."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of comparison.

    `window` counts as in the paper: both sides together, or the look-back when causal. `dtype` is a name of torch's.
    """

    positions: int
    batch: int = 1
    heads: int = 12
    head_dim: int = 64
    window: int = 512
    dilation: int = 1
    global_tokens: int = 0
    causal: bool = False
    backward: bool = True
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def band(self) -> Band:
        """The band that the window stands for."""
        side = self.window if self.causal else self.window // 2
        return Band(left=side, right=0 if self.causal else side, dilation=self.dilation)

    @property
    def useful_flops(self) -> tuple[float, float]:
        """Operations of the forward and of the backward pass on visible pairs of the band.

        Backward needs five products where forward needs two. Pairs with global keys outside the band are not counted.
        """
        forward = float(self.batch * self.heads * self.band.forward_flops(self.positions, self.head_dim))
        return forward, 2.5 * forward if self.backward else 0.0

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns random query, key and value, and the gradient of the output."""
        generator = torch.Generator(self.device).manual_seed(0)
        shape = (self.batch, self.positions, self.heads, self.head_dim)
        dtype = getattr(torch, self.dtype)
        query, key, value, gradient = (
            torch.randn(shape, generator=generator, device=self.device, dtype=dtype) for _ in range(4)
        )
        return (
            query.requires_grad_(self.backward),
            key.requires_grad_(self.backward),
            value.requires_grad_(self.backward),
            gradient,
        )

    def global_mask(self) -> Tensor | None:
        """Returns the mask (batch, positions) of global tokens, spread evenly from the first on; None without any."""
        if self.global_tokens == 0:
            return None
        is_global = torch.zeros(self.positions, dtype=torch.bool, device=self.device)
        is_global[torch.arange(self.global_tokens) * self.positions // self.global_tokens] = True
        return is_global.expand(self.batch, -1)
