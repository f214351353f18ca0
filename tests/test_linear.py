"""A linear layer gives PyTorch's values and gradients, whichever library multiplies."""

import pytest
import torch
from torch.nn import functional

from longformer.cpu.linear import Linear, onednn_multiplies, product


@pytest.mark.parametrize("shape", [(1, 6), (5, 6), (2, 3, 6), (0, 6)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_linear_layer_is_pytorchs(shape: tuple[int, ...], bias: bool, enabled: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(6, 4, bias=bias)
    hidden = torch.randn(shape, requires_grad=True)
    expected = functional.linear(hidden, layer.weight, layer.bias)
    inputs, gradient = (hidden, *layer.parameters()), torch.randn_like(expected)
    with torch.backends.mkldnn.flags(enabled=enabled):
        found = layer(hidden)
        torch.testing.assert_close(found, expected)
        found_gradients = torch.autograd.grad(found, inputs, gradient)
    torch.testing.assert_close(found_gradients, torch.autograd.grad(expected, inputs, gradient))


def test_a_frozen_layer_hands_the_gradient_on_and_a_fixed_input_teaches_the_layer() -> None:
    layer, hidden = Linear(6, 4).requires_grad_(False), torch.randn(3, 6, requires_grad=True)
    layer(hidden).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(hidden.grad, layer.weight.sum(0).expand(3, -1))
    layer.requires_grad_(True)
    layer(hidden.detach()).sum().backward()
    torch.testing.assert_close(layer.weight.grad, hidden.detach().sum(0).expand(4, -1))


def test_strided_operands_and_other_precisions_are_multiplied_too() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(6, 5).T, torch.randn(6, 4).T
    torch.testing.assert_close(product(hidden, weight), hidden @ weight.T)
    assert product(hidden.double(), weight.double()).dtype == torch.float64
    assert not onednn_multiplies(hidden.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(5, 4)(torch.randn(2, 5)).dtype == torch.bfloat16
