"""What the layers of Longformer and LED are made of besides attention: the feed-forward part, and add & norm.

The one place where models meet `longformer.cpu`, which computes `add_and_norm` on a CPU in less time and memory. On
every other device, and wherever a module has been replaced or hooked, the plain code runs.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.cpu.residual import add_and_norm_in_chunks, runs_in_chunks

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}


class FeedForward:
    """`output(dropout(activation(inner(x))))`; not a module, since Hugging Face nests the two linear layers elsewhere.

    Args:
        inner, output: linear layers with biases.
        activation: works element by element.
        dropout: probability of dropping an activated element, 0 in evaluation.
    """

    def __init__(self, inner: nn.Linear, activation: Activation, output: nn.Linear, *, dropout: float = 0.0) -> None:
        self.inner, self.activation, self.output, self.dropout = inner, activation, output, dropout

    def __call__(self, x: Tensor) -> Tensor:
        """Returns (..., width) of (..., width)."""
        result: Tensor = self.output(functional.dropout(self.activation(self.inner(x)), self.dropout))
        return result


def add_and_norm(
    residual: Tensor, sublayer: nn.Module | FeedForward, x: Tensor, *, dropout: nn.Dropout, norm: nn.LayerNorm | None
) -> Tensor:
    """Returns `norm(residual + dropout(sublayer(x)))`, (..., width); on a CPU its gradient can be taken once.

    Args:
        residual: (..., width).
        sublayer: a linear layer or a feed-forward part, (..., features) to (..., width).
        x: (..., features), the input of the sublayer.
        dropout: of the sublayer's output.
        norm: None: the sum is not normalised.
    """
    if residual.device.type == "cpu" and not (isinstance(sublayer, FeedForward) and sublayer.dropout):
        linears, activation = parts(sublayer)
        if runs_in_chunks(residual, x, linears, norm):
            return add_and_norm_in_chunks(residual, x, linears, activation, dropout=dropout, norm=norm)
    total = residual + dropout(sublayer(x))
    return total if norm is None else norm(total)


def parts(sublayer: nn.Module | FeedForward) -> tuple[tuple[nn.Module, ...], Activation | None]:
    """Returns the linear layers of a sublayer, and the activation between them where there are two."""
    if isinstance(sublayer, FeedForward):
        return (sublayer.inner, sublayer.output), sublayer.activation
    return (sublayer,), None
