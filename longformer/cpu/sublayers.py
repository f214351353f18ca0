"""What a sublayer adds to the hidden states: a projection, or the feed-forward part.

Each is there twice: as the modules it is made of, and as the computation on some rows that a CPU runs (see `residual`).
Where the modules have been replaced or hooked, by adapters or by sharding, they are called as modules.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from longformer.attention.blocked.partition import computing_dtype
from longformer.cpu.linear import Linear, product

Activation = Callable[[Tensor], Tensor]


class RowsOfBranch(Protocol):
    """The computation for some rows at a time, without autograd; backward collects the gradients of the weights."""

    gradients: list[Tensor | None]
    """Of the weights, in float32 or better; None where not needed."""

    def forward(self, rows: Tensor, inside: Sequence[Tensor]) -> Tensor:
        """Return (count, width) of (count, features), and fill `inside` with what backward is to find there.

        `inside` has a tensor (count, features) for each of the branch's `features_inside`, or none: nothing is kept.
        """

    def backward(self, rows: Tensor, gradient: Tensor, inside: Sequence[Tensor]) -> Tensor:
        """Return the gradient of `rows`, given that of their result, and `inside` as forward filled it."""


class Branch(Protocol):
    """A branch of modules."""

    @property
    def layers(self) -> tuple[nn.Linear, ...]:
        """The linear layers, in turn."""

    def __call__(self, read: Tensor) -> Tensor:
        """Return the branch's result, with autograd; (..., features) to (..., width)."""

    def on_rows(self, weights: Sequence[Tensor], needed: Sequence[bool]) -> RowsOfBranch:
        """Return the computation with the layers' weights and biases, in turn; `needed` tells which want gradients."""

    @property
    def drops(self) -> bool:
        """Whether the branch has a dropout of its own at work."""

    @property
    def features_inside(self) -> Sequence[int]:
        """What `RowsOfBranch` keeps from forward to backward: the features of every tensor, none: nothing."""


class Projection:
    """One linear layer."""

    drops = False
    features_inside = ()

    def __init__(self, layer: nn.Linear) -> None:
        self.layers = (layer,)

    def __call__(self, read: Tensor) -> Tensor:
        """Return the projected rows."""
        projected: Tensor = self.layers[0](read)
        return projected

    def on_rows(self, weights: Sequence[Tensor], needed: Sequence[bool]) -> RowsOfBranch:
        """Return the computation on rows."""
        return ProjectionOfRows(weights, needed)


class ProjectionOfRows:
    """A linear layer on some rows."""

    def __init__(self, weights: Sequence[Tensor], needed: Sequence[bool]) -> None:
        self.weight, self.bias = weights
        self.gradients = zeros_where(weights, needed)

    def forward(self, rows: Tensor, inside: Sequence[Tensor]) -> Tensor:
        """Return the projected rows."""
        return product(rows, self.weight, self.bias)

    def backward(self, rows: Tensor, gradient: Tensor, inside: Sequence[Tensor]) -> Tensor:
        """Return the gradient of `rows`."""
        of_weight, of_bias = self.gradients
        if of_weight is not None:
            of_weight += gradient.T @ rows
        if of_bias is not None:
            of_bias += gradient.sum(0)
        return product(gradient, self.weight.T)


class FeedForward:
    """`narrowing(dropout(activation(widening(...))))`.

    Args:
        widening, narrowing: linear layers, with biases.
        activation: works element by element.
        dropout: probability of dropping an activated element, 0 in evaluation.
        keeps_inside: keep what the activation is given for backward, instead of computing it again.
    """

    def __init__(
        self,
        widening: nn.Linear,
        narrowing: nn.Linear,
        activation: Activation,
        *,
        dropout: float = 0.0,
        keeps_inside: bool = False,
    ) -> None:
        self.layers = widening, narrowing
        self.activation, self.dropout, self.keeps_inside = activation, dropout, keeps_inside

    @property
    def drops(self) -> bool:
        """Whether activated elements are dropped."""
        return self.dropout > 0

    @property
    def features_inside(self) -> Sequence[int]:
        """Pieces as wide as the hidden states: memory kept for one of these serves the other."""
        widening, _ = self.layers
        inner, width = widening.weight.shape
        borders = [*range(0, inner, width), inner] if self.keeps_inside else []
        return [end - start for start, end in pairwise(borders)]

    def __call__(self, read: Tensor) -> Tensor:
        """Return what the layers give one after another; of what is wide, what the activation is given is kept."""
        widening, narrowing = self.layers
        inner = widening(read)
        keeps_all = self.drops or torch.compiler.is_compiling() or not all(map(is_plain, self.layers))
        if keeps_all or not inner.requires_grad:
            return narrowing(functional.dropout(self.activation(inner), self.dropout))
        narrowed: Tensor = ActivatedProduct.apply(inner, narrowing.weight, narrowing.bias, self.activation)
        return narrowed

    def on_rows(self, weights: Sequence[Tensor], needed: Sequence[bool]) -> RowsOfBranch:
        """Return the computation on rows."""
        return FeedForwardOfRows(weights, needed, self.activation)


class FeedForwardOfRows:
    """The feed-forward part on some rows, in whose backward pass what is wide is computed again, unless it was kept.

    There it stands on its side, features by rows: so both matrices of every product lie along the sums, and oneDNN
    multiplies them at 190 GFLOP/s and more, instead of 115 to 160 (measured as in `longformer.cpu.linear`).
    """

    def __init__(self, weights: Sequence[Tensor], needed: Sequence[bool], activation: Activation) -> None:
        self.weights, self.activation = weights, activation
        self.gradients = zeros_where(weights, needed)

    def forward(self, rows: Tensor, inside: Sequence[Tensor]) -> Tensor:
        """Return the narrowed rows."""
        widening, widening_bias, narrowing, narrowing_bias = self.weights
        inner = product(rows, widening, widening_bias)
        if inside:
            for kept, piece in zip(inside, inner.split(rows.shape[1], dim=1), strict=True):
                kept.copy_(piece)
        return product(self.activation(inner), narrowing, narrowing_bias)

    def backward(self, rows: Tensor, gradient: Tensor, inside: Sequence[Tensor]) -> Tensor:
        """Return the gradient of `rows`."""
        widening, widening_bias, _, _ = self.weights
        of_widening, of_widening_bias, of_narrowing, of_narrowing_bias = self.gradients
        inner = on_its_side(*inside) if inside else product(widening, rows).add_(widening_bias[:, None])
        with torch.enable_grad():
            inner.requires_grad_()
            activated = self.activation(inner)
        if of_narrowing is not None:
            of_narrowing += product(on_its_side(gradient), activated.detach())
        if of_narrowing_bias is not None:
            of_narrowing_bias += gradient.sum(0)
        of_inner = torch.autograd.grad(activated, inner, product(self._narrowing_on_its_side, gradient))[0]
        if of_widening is not None:
            of_widening += product(of_inner, on_its_side(rows))
        if of_widening_bias is not None:
            of_widening_bias += of_inner.sum(1)
        return product(self._widening_on_its_side, of_inner.T).T

    @cached_property
    def _widening_on_its_side(self) -> Tensor:
        return on_its_side(self.weights[0])

    @cached_property
    def _narrowing_on_its_side(self) -> Tensor:
        return on_its_side(self.weights[2])


class ActivatedProduct(torch.autograd.Function):
    """`linear(activation(inner), weight, bias)`, whose backward pass activates again."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(inner, weight)
        ctx.activation = activation
        return product(activation(inner), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inner, weight = ctx.saved_tensors
        needs_inner, needs_weight, needs_bias, _ = ctx.needs_input_grad
        with torch.enable_grad():
            inner = inner.detach().requires_grad_()
            activated = ctx.activation(inner)
        rows = gradient.flatten(0, -2)
        of_inner = of_weight = None
        if needs_inner:
            # Under autocast the product was in lower precision than the weight.
            of_activated = product(gradient, weight.to(gradient.dtype).T)
            of_inner = torch.autograd.grad(activated, inner, of_activated.to(activated.dtype))[0]
        if needs_weight:
            of_weight = (rows.T @ activated.detach().flatten(0, -2).to(rows.dtype)).to(weight.dtype)
        return of_inner, of_weight, rows.sum(0).to(weight.dtype) if needs_bias else None, None


def on_its_side(*pieces: Tensor) -> Tensor:
    """Return (features, count), contiguous, of pieces (count, some of the features) side by side.

    By `cat`, which all threads work at: `contiguous` turns a matrix with one, in twice the time.
    """
    return torch.cat([each.T for each in pieces])


def zeros_where(weights: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    """Return zeros for the gradients of the weights that want one, in float32 or better: many are added up."""
    return [
        torch.zeros_like(weight, dtype=computing_dtype(weight)) if wanted else None
        for weight, wanted in zip(weights, needed, strict=True)
    ]


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer does what its class says: nobody has replaced it or hooked into it."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) in (Linear, nn.Linear, nn.LayerNorm) and not any(hooks)
