"""Triton kernels for banded attention: fast, deterministic, linear memory. Importing this package needs only torch.

`engine` and everything below it import Triton, so they are imported when first used.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from longformer.attention.fused.layout import BatchLayout

__all__ = ["BatchLayout", "fused_attention", "is_fastest_for"]

TRITON_INSTALLED = find_spec("triton") is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def largest_head_dim(dtype: torch.dtype, *, relative: bool) -> int:
    """Return how wide a head may be. A wider one with the relative term in float32 does not fit into registers."""
    return 64 if relative and dtype == torch.float32 else 128


def is_fastest_for(query: Tensor, scale: float, *, relative: bool) -> bool:
    """Whether the kernels can take such a call and run compiled: on CUDA, with Triton installed."""
    fits = query.dtype in DTYPES and query.shape[-1] <= largest_head_dim(query.dtype, relative=relative)
    return TRITON_INSTALLED and query.is_cuda and fits and scale > 0


def fused_attention(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    """Attend with the Triton kernels; see `engine.fused_attention`.

    Raises:
        ValueError: Triton is not installed, or the kernels cannot take `query`.
    """
    if not TRITON_INSTALLED:
        raise ValueError('backend "fused" needs Triton, which is not installed; use backend "blocked"')
    from longformer.attention.fused import engine

    return engine.fused_attention(query, key, value, **arguments)
