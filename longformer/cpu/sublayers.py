"""The sublayers of a transformer layer on a chunk of positions, without autograd: projection and feed-forward part."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from longformer.attention.blocked.partition import computing_dtype
from longformer.cpu.linear import linear

Activation = Callable[[Tensor], Tensor]


class ChunkedSublayer(Protocol):
    """The computation on one chunk after another; backward adds up the gradients of the weights."""

    gradients: list[Tensor | None]
    """Of the weights, in float32 or better; None where not needed."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (positions, width) of (positions, features)."""

    def backward(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Returns the gradient of `x`, given that of its result."""


def chunked_sublayer(
    weights: Sequence[Tensor], needed: Sequence[bool], activation: Activation | None
) -> ChunkedSublayer:
    """Returns the sublayer with these weights.

    Args:
        weights: weight and bias of one linear layer, or of the two of a feed-forward part.
        needed: which of the weights want gradients.
        activation: between two linear layers; None where there is one.
    """
    gradients = [
        torch.zeros_like(weight, dtype=computing_dtype(weight)) if wanted else None
        for weight, wanted in zip(weights, needed, strict=True)
    ]
    return Projection(weights, gradients) if activation is None else FeedForward(weights, gradients, activation)


class Projection:
    """A linear layer."""

    def __init__(self, weights: Sequence[Tensor], gradients: list[Tensor | None]) -> None:
        self.weight, self.bias = weights
        self.gradients = gradients

    def forward(self, x: Tensor) -> Tensor:
        """Returns (positions, width) of (positions, features)."""
        return linear(x, self.weight, self.bias)

    def backward(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Returns the gradient of `x`."""
        d_weight, d_bias = self.gradients
        if d_weight is not None:
            d_weight += gradient.T @ x
        if d_bias is not None:
            d_bias += gradient.sum(0)
        return linear(gradient, self.weight.T)


class FeedForward:
    """Two linear layers with an activation between them; backward computes what is wide again.

    There it is transposed, features by positions: so both matrices of every product lie along the sums, and oneDNN
    multiplies them at 190 GFLOP/s and more, instead of 115 to 160 (measured as in `longformer.cpu.linear`).
    """

    def __init__(self, weights: Sequence[Tensor], gradients: list[Tensor | None], activation: Activation) -> None:
        self.weights, self.gradients, self.activation = weights, gradients, activation

    def forward(self, x: Tensor) -> Tensor:
        """Returns (positions, width) of (positions, width)."""
        inner, inner_bias, output, output_bias = self.weights
        return linear(self.activation(linear(x, inner, inner_bias)), output, output_bias)

    def backward(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Returns the gradient of `x`."""
        inner, inner_bias, _, _ = self.weights
        d_inner, d_inner_bias, d_output, d_output_bias = self.gradients
        wide = linear(inner, x).add_(inner_bias[:, None])
        with torch.enable_grad():
            wide.requires_grad_()
            activated = self.activation(wide)
        if d_output is not None:
            d_output += linear(transposed(gradient), activated.detach())
        if d_output_bias is not None:
            d_output_bias += gradient.sum(0)
        d_wide = torch.autograd.grad(activated, wide, linear(self._output_transposed, gradient))[0]
        if d_inner is not None:
            d_inner += linear(d_wide, transposed(x))
        if d_inner_bias is not None:
            d_inner_bias += d_wide.sum(1)
        return linear(self._inner_transposed, d_wide.T).T

    @cached_property
    def _inner_transposed(self) -> Tensor:
        return transposed(self.weights[0])

    @cached_property
    def _output_transposed(self) -> Tensor:
        return transposed(self.weights[2])


def transposed(matrix: Tensor) -> Tensor:
    """Returns the transpose, contiguous.

    By `cat`, which all threads work at: `contiguous` transposes with one, in twice the time.
    """
    return torch.cat([matrix.T])
