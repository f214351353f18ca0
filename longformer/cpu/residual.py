"""How a sublayer ends: what its branch computes is dropped out, added to the hidden states and normalised.

On a CPU some rows at a time, forward and backward: what the branch makes of them stays in the processor's cache until
it is added and normalised, and only the result goes to memory. The result is also all that is kept, unless the branch
asks for more: what the norm had found before its weight and bias can be told from it (in-place normalisation, arXiv
1712.02616). Elsewhere PyTorch runs one module after another.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from longformer.attention.blocked.partition import computing_dtype
from longformer.cpu.buffer_pool import empty_like, new_empty
from longformer.cpu.dropout import Dropout, dropped, generator_of, new_seed
from longformer.cpu.linear import some_rows
from longformer.cpu.sublayers import Branch, is_plain

# What one group of rows frees serves the next one. glibc gives memory back to the system as soon as twice as much lies
# free as the largest block, up to 32 MiB, that was ever freed (mallopt(3), M_MMAP_THRESHOLD); a group needs more, and
# fetching it anew every time costs a tenth of the products. So a large block is freed, which nobody has written to.
torch.empty(31 * 2**20, dtype=torch.uint8)

Draw = tuple[float, int]
"""A probability of dropping an element, and the seed that chooses which."""


def add_branch(hidden: Tensor, branch: Branch, read: Tensor, *, dropout: Dropout, norm: nn.LayerNorm | None) -> Tensor:
    """Return `norm(hidden + dropout(branch(read)))`, whose gradient can be taken once.

    Args:
        hidden: (..., width).
        branch: gives (..., width).
        read: (..., features), what the branch reads.
        dropout: of the branch's result.
        norm: None: the sum is not normalised.
    """
    layers = branch.layers if norm is None else (*branch.layers, norm)
    weights = [each for layer in branch.layers for each in (layer.weight, layer.bias)]
    of_norm = (None, None) if norm is None else (norm.weight, norm.bias)
    tensors = [hidden, read, *weights, *(each for each in of_norm if each is not None)]
    if branch.drops or not all(map(is_plain, layers)) or not can_go_by_rows(tensors):
        total = hidden + dropout(branch(read))
        return total if norm is None else norm(total)
    draw = (dropout.p, new_seed()) if dropout.active else None
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
    epsilon = 0.0 if norm is None else norm.eps
    other = None if read is hidden else read
    result: Tensor = SumByRows.apply(branch, learns, draw, epsilon, hidden, other, *of_norm, *weights)
    return result


def can_go_by_rows(tensors: list[Tensor]) -> bool:
    """Return whether tensors are a CPU's and of one dtype, and no compiler and no autocast changes that."""
    alike = all(each.device.type == "cpu" and each.dtype == tensors[0].dtype for each in tensors)
    return alike and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


class SumByRows(torch.autograd.Function):
    """`add_branch` some rows at a time; without `other` the branch reads the hidden states."""

    @staticmethod
    def forward(
        ctx: Any,
        branch: Branch,
        learns: bool,
        draw: Draw | None,
        epsilon: float,
        hidden: Tensor,
        other: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        read = hidden if other is None else other
        result = empty_like(hidden)
        rows, read_rows, result_rows = (each.flatten(0, -2) for each in (hidden, read, result))
        computation = branch.on_rows(weights, [False] * len(weights))
        norm = None
        if norm_weight is not None and norm_bias is not None:
            norm = NormOfRows.of(norm_weight, norm_bias, rows)
        drop = drop_by(draw)
        widths = branch.features_inside if learns else ()
        inside = [new_empty(read_rows, (rows.shape[0], features)) for features in widths]
        for some in some_rows(rows):
            total = drop(computation.forward(read_rows[some], [each[some] for each in inside])).add_(rows[some])
            result_rows[some] = total if norm is None else norm.forward(some, total, epsilon)
        ctx.branch, ctx.draw, ctx.reads_hidden, ctx.pieces_inside = branch, draw, other is None, len(inside)
        of_norm = () if norm is None else (result, norm_weight, norm_bias, *norm.kept)
        ctx.save_for_backward(read, *inside, *weights, *of_norm)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        read, *saved = ctx.saved_tensors
        inside, saved = saved[: ctx.pieces_inside], saved[ctx.pieces_inside :]
        needed = ctx.needs_input_grad[8:]
        weights, of_norm = saved[: len(needed)], saved[len(needed) :]
        computation = ctx.branch.on_rows(weights, needed)
        norm = None
        if of_norm:
            result, norm_weight, norm_bias, *kept = of_norm
            norm, result_rows = NormOfRows(norm_weight, norm_bias, Kept(*kept)), result.flatten(0, -2)
        drop = drop_by(ctx.draw)
        of_hidden = empty_like(gradient)
        of_other = None if ctx.reads_hidden else empty_like(read)
        rows, read_rows, of_hidden_rows = (each.flatten(0, -2) for each in (gradient, read, of_hidden))
        for some in some_rows(rows):
            of_total = rows[some] if norm is None else norm.backward(some, result_rows[some], rows[some])
            of_read = computation.backward(read_rows[some], drop(of_total), [each[some] for each in inside])
            if of_other is None:
                torch.add(of_total, of_read, out=of_hidden_rows[some])
            else:
                of_hidden_rows[some] = of_total
                of_other.flatten(0, -2)[some] = of_read
        of_weights = (None if each is None else each.to(read.dtype) for each in computation.gradients)
        of_norm_weights = (None, None) if norm is None else (norm.of_weight.to(read.dtype), norm.of_bias.to(read.dtype))
        return None, None, None, None, of_hidden, of_other, *of_norm_weights, *of_weights


def drop_by(draw: Draw | None) -> Callable[[Tensor], Tensor]:
    """Return what drops elements of one tensor after another; the same draw drops the same ones."""
    if draw is None:
        return lambda tensor: tensor
    probability, seed = draw
    return partial(dropped, probability=probability, generator=generator_of(seed))


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
