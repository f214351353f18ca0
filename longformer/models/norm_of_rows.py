"""Layer norm of some rows at a time, which keeps its result instead of its input."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from longformer.attention.blocked.partition import computing_dtype
from longformer.cpu.buffer_pool import empty_like

# How many times as large as a weight its bias may be: what is told from the result is off by as many roundings.
LARGEST_BIAS = 256.0


class Kept(NamedTuple):
    """What backward finds beside the result."""

    total: Tensor | None
    """(rows, width), what is normalised; None where the result tells."""
    mean: Tensor
    """(rows, 1)."""
    inverse_deviation: Tensor
    """(rows, 1)."""


class NormOfRows:
    """A layer norm and its gradients; `weight` and `bias` are (width,)."""

    def __init__(self, weight: Tensor, bias: Tensor, kept: Kept) -> None:
        self.weight, self.bias, self.kept = weight, bias, kept
        self.of_weight, self.of_bias = (torch.zeros_like(weight, dtype=computing_dtype(weight)) for _ in range(2))

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, rows: Tensor) -> Self:
        """Prepare for normalising as many rows as there are in (rows, width)."""
        mean, inverse_deviation = (rows.new_empty(rows.shape[0], 1) for _ in range(2))
        total = None if can_be_undone(weight, bias) else empty_like(rows)
        return cls(weight, bias, Kept(total, mean, inverse_deviation))

    def forward(self, some: slice, total: Tensor, epsilon: float) -> Tensor:
        """Return some rows normalised."""
        kept_total, *statistics = self.kept
        result, *found = torch.native_layer_norm(total, self.weight.shape, self.weight, self.bias, epsilon)
        for kept, each in zip(statistics, found, strict=True):
            kept[some] = each
        if kept_total is not None:
            kept_total[some] = total
        return result

    def backward(self, some: slice, result: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient of what was normalised, given some rows of the result and of its gradient."""
        total, mean, inverse_deviation = self.kept
        mean, inverse_deviation = mean[some], inverse_deviation[some]
        if total is None:
            # Normalising what is normal changes nothing, and divides its gradient by a deviation of one.
            given = (result - self.bias).div_(self.weight)
            statistics = torch.zeros_like(mean), torch.ones_like(inverse_deviation)
        else:
            given, statistics = total[some], (mean, inverse_deviation)
        of_total, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            gradient, given, self.weight.shape, *statistics, self.weight, self.bias, [True, True, True]
        )
        self.of_weight += of_weight
        self.of_bias += of_bias
        return of_total if total is not None else of_total.mul_(inverse_deviation)


def can_be_undone(weight: Tensor, bias: Tensor) -> bool:
    """Return whether (result - bias) / weight is precisely what was there before."""
    precise = weight.dtype in (torch.float32, torch.float64)
    limits = torch.finfo(weight.dtype)
    size = weight.abs()
    return precise and bool(((size > limits.tiny / limits.eps) & (bias.abs() <= LARGEST_BIAS * size)).all())
