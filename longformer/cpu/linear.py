"""Linear layers, multiplied on a CPU by the faster of the two matrix libraries that PyTorch carries.

PyTorch multiplies float32 matrices with MKL and keeps oneDNN, which computes the same sums in the same precision, for
compiled models. Measured with two threads of an AMD EPYC 9004, 4,096 vectors from 768 to 768 features and from 3,072 to
768: forward 202 and 202 GFLOP/s against 138 and 165, gradients of the input 202 and 187 against 175 and 176. Gradients
of the weight are no faster.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from longformer.cpu.buffer_pool import new_empty

# Positions whose 3,072 inner features fit into a processor's last cache. Fewer make products with short sums, which are
# slow.
CHUNK = 1024


def chunks(positions: Tensor) -> Iterator[slice]:
    """Yield the chunks in which (positions, features) are computed."""
    for first in range(0, positions.shape[0], CHUNK):
        yield slice(first, first + CHUNK)


class Linear(nn.Linear):
    """`torch.nn.Linear`, whose gradient can be taken once."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., out_features) of (..., in_features)."""
        if torch.compiler.is_compiling() or not onednn_multiplies(hidden):
            return super().forward(hidden)
        output: Tensor = LinearProduct.apply(hidden, self.weight, self.bias)
        return output


class LinearProduct(torch.autograd.Function):
    """`linear` with its gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return chunked_linear(hidden, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad
        gradients = gradient.flatten(0, -2)
        return (
            chunked_linear(gradient, weight.T) if needs_hidden else None,
            gradients.T @ hidden.flatten(0, -2) if needs_weight else None,
            gradients.sum(0) if needs_bias else None,
        )


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `hidden @ weight.T + bias`, (..., out_features), without a gradient where oneDNN multiplies.

    Args:
        hidden: (..., in_features).
        weight: (out_features, in_features), any strides.
        bias: (out_features,).
    """
    if onednn_multiplies(hidden):
        output: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], None)
        return output
    return functional.linear(hidden, weight, bias)


def chunked_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `linear` in pooled memory, to which chunks are copied while they lie in the processor's cache."""
    inputs = hidden.flatten(0, -2)
    if inputs.shape[0] <= CHUNK:
        return linear(hidden, weight, bias)
    result = new_empty(hidden, (*hidden.shape[:-1], weight.shape[0]))
    results = result.flatten(0, -2)
    for chunk in chunks(inputs):
        results[chunk] = linear(inputs[chunk], weight, bias)
    return result


def onednn_multiplies(hidden: Tensor) -> bool:
    """Return whether products of `hidden` are oneDNN's: float32 on a CPU, unless `torch.backends.mkldnn` is off."""
    return bool(
        hidden.device.type == "cpu"
        and hidden.dtype == torch.float32
        and hidden.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )
