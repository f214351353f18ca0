"""Memory that is used again from tile to tile and from part to part of one call.

Fresh pages for every tile would cost the operating system more time than the sums cost the processor.
"""

from math import prod

import torch
from torch import Tensor


class Scratch:
    """Named buffers of one dtype on one device, each as large as its largest use."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return the buffer `name` in this shape, contiguous, its content undefined."""
        size = prod(shape)
        if name not in self.buffers or self.buffers[name].numel() < size:
            self.buffers[name] = torch.empty(size, dtype=self.dtype, device=self.device)
        return self.buffers[name][:size].view(shape)
