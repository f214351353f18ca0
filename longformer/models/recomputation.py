"""Parts of a layer that keep little for backward: what is cheap to compute is computed again.

Where PyTorch compiles a layer it chooses itself what to keep, so there the plain computation stands.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from longformer.attention.dropout import draw_kept, factor_of_kept
from longformer.linear import Linear, product

# Rows of 3,072 floats that a processor's last cache holds together with their gradients.
ROWS_ON_CPU = 512

Activation = Callable[[Tensor], Tensor]


class ActivatedLinear(Linear):
    """A linear layer of `dropout(activation(x))` that keeps x and nothing as large beside it.

    Args:
        in_features, out_features: as in `torch.nn.Linear`.
        activation: works element by element.
        dropout: probability of dropping an activated element while training; then the activated elements are kept.
    """

    def __init__(self, in_features: int, out_features: int, activation: Activation, dropout: float = 0.0) -> None:
        super().__init__(in_features, out_features)
        self.activation, self.dropout = activation, dropout

    def forward(self, inner: Tensor) -> Tensor:
        """Return (..., out_features) of (..., in_features), which is not activated yet."""
        drops = self.training and self.dropout > 0
        if drops or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return super().forward(functional.dropout(self.activation(inner), self.dropout, self.training))
        output: Tensor = LinearOfActivation.apply(inner, self.weight, self.bias, self.activation)
        return output


class LinearOfActivation(torch.autograd.Function):
    """`linear(activation(inner), weight, bias)`, some rows at a time; backward activates again."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(inner, weight)
        ctx.activation = activation
        outputs = [product(activation(some), weight, bias) for some in inner.flatten(0, -2).split(rows_at_once(inner))]
        return torch.cat(outputs).unflatten(0, inner.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inner, weight = ctx.saved_tensors
        needs_inner, needs_weight, needs_bias, _ = ctx.needs_input_grad
        # Under autocast the product was in lower precision than the weight.
        weight_gradient = torch.zeros_like(weight, dtype=gradient.dtype) if needs_weight else None
        inner_gradient = torch.empty_like(inner) if needs_inner else None
        rows, at_once = gradient.flatten(0, -2), rows_at_once(inner)
        for first in range(0, rows.shape[0], at_once):
            some = slice(first, first + at_once)
            with torch.enable_grad():
                before = inner.flatten(0, -2)[some].detach().requires_grad_()
                activated = ctx.activation(before)
            if weight_gradient is not None:
                weight_gradient.addmm_(rows[some].T, activated.detach().to(rows.dtype))
            if inner_gradient is not None:
                of_activated = product(rows[some], weight.to(rows.dtype).T).to(activated.dtype)
                inner_gradient.flatten(0, -2)[some] = torch.autograd.grad(activated, before, of_activated)[0]
        return (
            inner_gradient,
            None if weight_gradient is None else weight_gradient.to(weight.dtype),
            rows.sum(0).to(weight.dtype) if needs_bias else None,
            None,
        )


def rows_at_once(inner: Tensor) -> int:
    """Return of how many rows the activated elements exist at a time: on a CPU few enough to stay in its cache."""
    return ROWS_ON_CPU if inner.device.type == "cpu" else max(1, inner.numel() // inner.shape[-1])


class Dropout(nn.Dropout):
    """Dropout that keeps a seed instead of a mask, where PyTorch would keep four bytes an element: on the CPU."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return `hidden` with elements dropped while training."""
        drops = self.training and self.p > 0
        if not drops or hidden.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(hidden)
        output: Tensor = SeededDropout.apply(hidden, self.p, int(torch.randint(2**62, ())))
        return output


class SeededDropout(torch.autograd.Function):
    """Dropout drawn from a seed, forward and again backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, probability: float, seed: int) -> Tensor:
        ctx.draw = probability, seed
        return dropped(hidden, probability, seed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return dropped(gradients[0], *ctx.draw), None, None


def dropped(tensor: Tensor, probability: float, seed: int) -> Tensor:
    """Return `tensor` with the elements dropped that the seed chooses."""
    kept = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    draw_kept(kept, probability, torch.Generator(tensor.device).manual_seed(seed))
    return kept.mul_(factor_of_kept(probability)).mul_(tensor)
