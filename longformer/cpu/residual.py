"""A residual connection on a CPU: `norm(residual + dropout(sublayer(x)))`, computed in chunks of a thousand positions.

What a sublayer makes of a chunk stays in the processor's cache until it is added and normalised, forward and backward,
and only the result goes to memory. The result is also all that is saved for backward: the sum before the norm is
computed from it (in-place normalisation, arXiv 1712.02616), dropout is drawn again from its seed, and the inside of a
feed-forward part is computed again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from longformer.attention.blocked.partition import computing_dtype
from longformer.cpu.buffer_pool import empty_like
from longformer.cpu.dropout import dropped, generator_of, new_seed
from longformer.cpu.linear import chunks
from longformer.cpu.sublayers import Activation, chunked_sublayer

# What one chunk frees serves the next one. glibc gives memory back to the system as soon as twice as much lies free as
# the largest block, up to 32 MiB, that was ever freed (mallopt(3), M_MMAP_THRESHOLD); a chunk needs more, and fetching
# it anew every time costs a tenth of the products. So a large block is freed, which nobody has written to.
torch.empty(31 * 2**20, dtype=torch.uint8)

SeededDropout = tuple[float, int]
"""A probability of dropping an element, and the seed that chooses which."""


def runs_in_chunks(residual: Tensor, x: Tensor, linears: Sequence[nn.Module], norm: nn.Module | None) -> bool:
    """Returns whether `add_and_norm_in_chunks` may stand for the modules.

    They and the tensors must be on a CPU and of one dtype, and plain: neither replaced nor hooked, as adapters and
    sharding do, nor compiled or under autocast.
    """
    modules = (*linears, *(() if norm is None else (norm,)))
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or not all(map(is_plain, modules)):
        return False
    tensors = [residual, x, *(each for module in modules for each in module.parameters(recurse=False))]
    return all(each.device.type == "cpu" and each.dtype == residual.dtype for each in tensors)


def is_plain(module: nn.Module) -> bool:
    """Returns whether a module does what its class says: nobody has replaced it or hooked into it."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module) in (nn.Linear, nn.LayerNorm) and not any(hooks)


def add_and_norm_in_chunks(
    residual: Tensor,
    x: Tensor,
    linears: Sequence[nn.Module],
    activation: Activation | None,
    *,
    dropout: nn.Dropout,
    norm: nn.LayerNorm | None,
) -> Tensor:
    """Returns `norm(residual + dropout(sublayer(x)))`, (..., width), whose gradient can be taken once.

    Args:
        residual: (..., width).
        x: (..., features), the input of the sublayer.
        linears: with biases; one, or the two of a feed-forward part with `activation` between them.
        activation: works element by element; None where there is one linear layer.
        dropout: of the sublayer's output.
        norm: None: the sum is not normalised.
    """
    weights = [each for linear in linears for each in (linear.weight, linear.bias)]
    norm_weights = (None, None) if norm is None else (norm.weight, norm.bias)
    seeded = (dropout.p, new_seed()) if dropout.training and dropout.p > 0 else None
    epsilon = 0.0 if norm is None else norm.eps
    other = None if x is residual else x
    result: Tensor = ChunkedAddAndNorm.apply(activation, seeded, epsilon, residual, other, *norm_weights, *weights)
    return result


class ChunkedAddAndNorm(torch.autograd.Function):
    """`add_and_norm_in_chunks`; without `other` the residual is also the input of the sublayer."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: Activation | None,
        dropout: SeededDropout | None,
        epsilon: float,
        residual: Tensor,
        other: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        x = residual if other is None else other
        result = empty_like(residual)
        residuals, inputs, results = (each.flatten(0, -2) for each in (residual, x, result))
        sublayer = chunked_sublayer(weights, [False] * len(weights), activation)
        norm = None
        if norm_weight is not None and norm_bias is not None:
            norm = ChunkedLayerNorm.of(norm_weight, norm_bias, residuals)
        drop = dropout_by_seed(dropout)
        for chunk in chunks(residuals):
            total = drop(sublayer.forward(inputs[chunk])).add_(residuals[chunk])
            results[chunk] = total if norm is None else norm.forward(chunk, total, epsilon)
        ctx.activation, ctx.dropout, ctx.x_is_residual = activation, dropout, other is None
        saved_of_norm = () if norm is None else (result, norm_weight, norm_bias, *norm.saved)
        ctx.save_for_backward(x, *weights, *saved_of_norm)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[7:]
        weights, saved_of_norm = saved[: len(needed)], saved[len(needed) :]
        sublayer = chunked_sublayer(weights, needed, ctx.activation)
        norm = None
        if saved_of_norm:
            result, norm_weight, norm_bias, *kept = saved_of_norm
            norm, results = ChunkedLayerNorm(norm_weight, norm_bias, SavedByNorm(*kept)), result.flatten(0, -2)
        drop = dropout_by_seed(ctx.dropout)
        d_residual = empty_like(gradient)
        d_other = None if ctx.x_is_residual else empty_like(x)
        gradients, inputs, d_residuals = (each.flatten(0, -2) for each in (gradient, x, d_residual))
        for chunk in chunks(gradients):
            d_total = gradients[chunk] if norm is None else norm.backward(chunk, results[chunk], gradients[chunk])
            d_x = sublayer.backward(inputs[chunk], drop(d_total))
            if d_other is None:
                torch.add(d_total, d_x, out=d_residuals[chunk])
            else:
                d_residuals[chunk] = d_total
                d_other.flatten(0, -2)[chunk] = d_x
        d_weights = (None if each is None else each.to(x.dtype) for each in sublayer.gradients)
        d_norm = (None, None) if norm is None else (norm.d_weight.to(x.dtype), norm.d_bias.to(x.dtype))
        return None, None, None, d_residual, d_other, *d_norm, *d_weights


def dropout_by_seed(dropout: SeededDropout | None) -> Callable[[Tensor], Tensor]:
    """Returns what drops elements of one chunk after another; the same seed drops the same ones."""
    if dropout is None:
        return lambda tensor: tensor
    probability, seed = dropout
    return partial(dropped, probability=probability, generator=generator_of(seed))


# How many times as large as a weight its bias may be: what is computed from the result is off by as many roundings.
MAX_BIAS = 256.0


class SavedByNorm(NamedTuple):
    """What backward finds beside the result."""

    total: Tensor | None
    """(positions, width), the input of the norm; None where it can be computed from the result."""
    mean: Tensor
    """(positions, 1)."""
    inverse_deviation: Tensor
    """(positions, 1)."""


class ChunkedLayerNorm:
    """A layer norm and its gradients; `weight` and `bias` are (width,)."""

    def __init__(self, weight: Tensor, bias: Tensor, saved: SavedByNorm) -> None:
        self.weight, self.bias, self.saved = weight, bias, saved
        self.d_weight, self.d_bias = (torch.zeros_like(weight, dtype=computing_dtype(weight)) for _ in range(2))

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, positions: Tensor) -> Self:
        """Prepares for normalising as many positions as there are in (positions, width)."""
        mean, inverse_deviation = (positions.new_empty(positions.shape[0], 1) for _ in range(2))
        total = None if is_invertible(weight, bias) else empty_like(positions)
        return cls(weight, bias, SavedByNorm(total, mean, inverse_deviation))

    def forward(self, chunk: slice, total: Tensor, epsilon: float) -> Tensor:
        """Returns a chunk normalised."""
        saved_total, *statistics = self.saved
        result, *computed = torch.native_layer_norm(total, self.weight.shape, self.weight, self.bias, epsilon)
        for saved, each in zip(statistics, computed, strict=True):
            saved[chunk] = each
        if saved_total is not None:
            saved_total[chunk] = total
        return result

    def backward(self, chunk: slice, result: Tensor, gradient: Tensor) -> Tensor:
        """Returns the gradient of the norm's input, given a chunk of the result and of its gradient."""
        total, mean, inverse_deviation = self.saved
        mean, inverse_deviation = mean[chunk], inverse_deviation[chunk]
        if total is None:
            # Normalising what is normal changes nothing, and divides its gradient by a deviation of one.
            given = (result - self.bias).div_(self.weight)
            statistics = torch.zeros_like(mean), torch.ones_like(inverse_deviation)
        else:
            given, statistics = total[chunk], (mean, inverse_deviation)
        d_total, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
            gradient, given, self.weight.shape, *statistics, self.weight, self.bias, [True, True, True]
        )
        self.d_weight += d_weight
        self.d_bias += d_bias
        return d_total if total is not None else d_total.mul_(inverse_deviation)


def is_invertible(weight: Tensor, bias: Tensor) -> bool:
    """Returns whether (result - bias) / weight is precisely what was there before."""
    precise = weight.dtype in (torch.float32, torch.float64)
    limits = torch.finfo(weight.dtype)
    size = weight.abs()
    return precise and bool(((size > limits.tiny / limits.eps) & (bias.abs() <= MAX_BIAS * size)).all())
