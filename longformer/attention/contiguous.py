"""New memory in the shape of a tensor that may be a view."""

import torch
from torch import Tensor


def empty_like(tensor: Tensor) -> Tensor:
    """Return a new contiguous tensor, whatever the strides of the one given."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
