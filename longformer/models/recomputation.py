"""Parts of a layer that keep little for backward: what is cheap to compute is computed again.

Where PyTorch compiles a layer it chooses itself what to keep, so there the plain computation stands.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from longformer.attention.dropout import draw_kept, factor_of_kept
from longformer.linear import precision_of_product, product

# Rows of 3,072 floats that a processor's last cache holds together with their gradients.
ROWS_ON_CPU = 512
# Elements whose draws stay in a second-level cache.
DRAWN_AT_ONCE = 2**18

Activation = Callable[[Tensor], Tensor]


def feed_forward(
    hidden: Tensor, widening: nn.Linear, narrowing: nn.Linear, activation: Activation, *, dropout: float = 0.0
) -> Tensor:
    """Return `narrowing(dropout(activation(widening(hidden))))`, which keeps little of what is wide.

    On a CPU that is nothing: the wide rows exist a few at a time, forward, and again backward. What is computed twice
    costs about as much as fetching it from memory would (measured with 4,096 and 16,384 rows of 768 features, 3,072
    inside: 1.5 and 4 % more). Elsewhere what the activation is given is kept.

    Args:
        hidden: (batch, positions, width) or (rows, width).
        widening, narrowing: linear layers, with biases.
        activation: works element by element.
        dropout: probability of dropping an activated element, 0 in evaluation; where there is one, all is kept.
    """
    if dropout or torch.compiler.is_compiling():
        return narrowing(functional.dropout(activation(widening(hidden)), dropout))
    weights = (widening.weight, widening.bias, narrowing.weight, narrowing.bias)
    output: Tensor = FeedForward.apply(hidden, *weights, activation)
    return output


class FeedForward(torch.autograd.Function):
    """`feed_forward` without dropout, some rows at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        widening: Tensor,
        widening_bias: Tensor,
        narrowing: Tensor,
        narrowing_bias: Tensor,
        activation: Activation,
    ) -> Tensor:
        rows = hidden.flatten(0, -2)
        # Backward multiplies in the precision of forward, which its gradient tells.
        precision = precision_of_product(rows, widening)
        output = torch.empty(rows.shape[0], narrowing.shape[0], dtype=precision, device=rows.device)
        kept = None
        for some in some_rows(rows):
            inner = product(rows[some], widening, widening_bias)
            output[some] = product(activation(inner), narrowing, narrowing_bias)
            kept = inner if hidden.device.type != "cpu" else None
        ctx.save_for_backward(hidden, widening, widening_bias, narrowing, kept)
        ctx.activation = activation
        return output.unflatten(0, hidden.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, *weights, kept = ctx.saved_tensors
        widening, widening_bias, narrowing = (weight.to(gradient.dtype) for weight in weights)
        rows, of_rows = hidden.flatten(0, -2), gradient.flatten(0, -2)
        needs_hidden, *needs_weights, _ = ctx.needs_input_grad
        of_hidden = torch.empty_like(rows) if needs_hidden else None
        of_widening, of_widening_bias, of_narrowing = (
            torch.zeros_like(weight) if needed else None
            for weight, needed in zip((widening, widening_bias, narrowing), needs_weights, strict=False)
        )
        for some in some_rows(rows):
            read = rows[some].to(gradient.dtype)
            with torch.enable_grad():
                inner = (product(read, widening, widening_bias) if kept is None else kept).detach().requires_grad_()
                activated = ctx.activation(inner)
            if of_narrowing is not None:
                of_narrowing.addmm_(of_rows[some].T, activated.detach())
            of_inner = torch.autograd.grad(activated, inner, product(of_rows[some], narrowing.T))[0]
            if of_widening is not None:
                of_widening.addmm_(of_inner.T, read)
            if of_widening_bias is not None:
                of_widening_bias += of_inner.sum(0)
            if of_hidden is not None:
                of_hidden[some] = product(of_inner, widening.T)
        of_weights = (
            None if each is None else each.to(weight.dtype)
            for each, weight in zip((of_widening, of_widening_bias, of_narrowing), weights, strict=True)
        )
        return (
            None if of_hidden is None else of_hidden.view(hidden.shape),
            *of_weights,
            of_rows.sum(0).to(weights[2].dtype) if needs_weights[3] else None,
            None,
        )


def some_rows(rows: Tensor) -> Iterator[slice]:
    """Cut (count, width) into rows that are widened at a time: on a CPU few enough to stay in its cache."""
    at_once = ROWS_ON_CPU if rows.device.type == "cpu" else max(1, rows.shape[0])
    for first in range(0, rows.shape[0], at_once):
        yield slice(first, first + at_once)


class Dropout(nn.Dropout):
    """Dropout that keeps a seed instead of a mask, where PyTorch would keep four bytes an element: on the CPU."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return `hidden` with elements dropped while training."""
        return self._seeded(hidden, None) if self._keeps_seed(hidden) else super().forward(hidden)

    def added(self, branch: Tensor, hidden: Tensor) -> Tensor:
        """Return `hidden` plus `branch` with elements dropped while training."""
        if branch.dtype != hidden.dtype or not self._keeps_seed(branch):
            return hidden + self(branch)
        return self._seeded(branch, hidden)

    def _keeps_seed(self, tensor: Tensor) -> bool:
        on_cpu = tensor.device.type == "cpu"
        return self.training and self.p > 0 and on_cpu and not torch.compiler.is_compiling()

    def _seeded(self, branch: Tensor, hidden: Tensor | None) -> Tensor:
        output: Tensor = SeededDropout.apply(branch, hidden, self.p, int(torch.randint(2**62, ())))
        return output


class SeededDropout(torch.autograd.Function):
    """Dropout drawn from a seed, forward and again backward; what is left is added to something where that is given."""

    @staticmethod
    def forward(ctx: Any, branch: Tensor, hidden: Tensor | None, probability: float, seed: int) -> Tensor:
        ctx.draw = probability, seed
        return dropped(branch, probability, seed, hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden = gradients[0] if ctx.needs_input_grad[1] else None
        return dropped(gradients[0], *ctx.draw), of_hidden, None, None


def dropped(tensor: Tensor, probability: float, seed: int, addend: Tensor | None = None) -> Tensor:
    """Return `tensor` with the elements dropped that the seed chooses, plus `addend` if there is one."""
    generator = torch.Generator(tensor.device).manual_seed(seed)
    result = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    given, added = tensor.flatten(), None if addend is None else addend.flatten()
    for first in range(0, result.numel(), DRAWN_AT_ONCE):
        some = slice(first, first + DRAWN_AT_ONCE)
        kept = draw_kept(result.view(-1)[some], probability, generator)
        kept.mul_(given[some]).mul_(factor_of_kept(probability))
        if added is not None:
            kept.add_(added[some])
    return result
