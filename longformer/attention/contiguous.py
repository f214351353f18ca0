"""New memory in the shape of a tensor that may be a view."""

import torch
from torch import Tensor


def empty_like(tensor: Tensor) -> Tensor:
    """Return a new contiguous tensor, whatever the strides of the one given."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def zeros_like(tensor: Tensor) -> Tensor:
    """Return new contiguous zeros.

    All threads then ask the system for the memory, which costs as much as the zeros many times over. What is written
    a few rows at a time would leave that to one of them, while the others wait.
    """
    return empty_like(tensor).zero_()
