"""Triton kernels for banded attention: fast, deterministic, linear memory. Importing this package needs only torch.

`engine` and everything below it import Triton, so they are imported when first used.
"""

from typing import Any

from torch import Tensor

from longformer.attention.fused.layout import BatchLayout
from longformer.attention.fused.limits import TRITON_INSTALLED, is_fastest_for, obstacle

__all__ = [
    "BatchLayout",
    "fused_attention",
    "fused_attention_of_projections",
    "fused_global_attention",
    "is_fastest_for",
    "obstacle",
]


def fused_attention(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    """Attends with the Triton kernels; see `engine.fused_attention`.

    Raises:
        ValueError: Triton is not installed, or the kernels cannot take `query`.
    """
    return _engine().fused_attention(query, key, value, **arguments)


def fused_attention_of_projections(projections: tuple[Tensor, ...], **arguments: Any) -> Tensor:
    """Attends with the Triton kernels to what a layer projected; see `engine.fused_attention_of_projections`.

    Raises:
        ValueError: Triton is not installed, or the kernels cannot take the projections.
    """
    return _engine().fused_attention_of_projections(projections, **arguments)


def fused_global_attention(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    """Attends from global tokens with the Triton kernels; see `engine.fused_global_attention`.

    Raises:
        ValueError: Triton is not installed, or the kernels cannot take `query`.
    """
    return _engine().fused_global_attention(query, key, value, **arguments)


def _engine() -> Any:
    if not TRITON_INSTALLED:
        raise ValueError('backend "fused" needs Triton, which is not installed; use backend "blocked"')
    from longformer.attention.fused import engine

    return engine
