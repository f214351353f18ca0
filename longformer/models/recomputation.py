"""Parts of a layer that keep little for backward: what is cheap to compute is computed again.

Where PyTorch compiles a layer it chooses itself what to keep, so there the plain computation stands.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.attention.dropout import draw_kept

Activation = Callable[[Tensor], Tensor]


class ActivatedLinear(nn.Linear):
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
    """`linear(activation(inner), weight, bias)`; backward activates again."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(inner, weight)
        ctx.activation = activation
        return functional.linear(activation(inner), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        inner, weight = ctx.saved_tensors
        with torch.enable_grad():
            inner = inner.detach().requires_grad_()
            activated = ctx.activation(inner)
        inner_gradient = weight_gradient = bias_gradient = None
        rows = gradient.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            # Under autocast the product was in lower precision than the weight.
            weight_gradient = (rows.T @ activated.detach().flatten(0, -2).to(rows.dtype)).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            bias_gradient = rows.sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            of_activated = (gradient @ weight.to(gradient.dtype)).to(activated.dtype)
            (inner_gradient,) = torch.autograd.grad(activated, inner, of_activated)
        return inner_gradient, weight_gradient, bias_gradient, None


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
    return draw_kept(kept, probability, torch.Generator(tensor.device).manual_seed(seed)).mul_(tensor)
