"""What is computed again gives the values and gradients of what would have been kept, and keeps less."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.attention.dropout import draw_kept, factor_of_kept
from longformer.models.layers import ACTIVATIONS
from longformer.models.recomputation import Activation, Dropout, feed_forward


def kept_bytes(module: nn.Module, tensor: Tensor) -> int:
    """Return the bytes that forward keeps beside its input and the parameters."""
    known = {each.untyped_storage().data_ptr() for each in (tensor, *module.parameters())}
    kept: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        module(tensor)
    return sum(size for address, size in kept.items() if address not in known)


class FeedForward(nn.Module):
    """The feed-forward part of a layer."""

    def __init__(self, activation: Activation = functional.gelu, dropout: float = 0.0) -> None:
        super().__init__()
        self.widening, self.narrowing = nn.Linear(6, 10), nn.Linear(10, 4)
        self.activation, self.dropout = activation, dropout

    def forward(self, hidden: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return feed_forward(hidden, self.widening, self.narrowing, self.activation, dropout=dropout)

    def plainly(self, hidden: Tensor) -> Tensor:
        return self.narrowing(self.activation(self.widening(hidden)))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(0, 6), (5, 6), (2, 3, 6), (1500, 6)])
def test_the_feed_forward_part_is_what_its_layers_give_one_after_another(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    part = FeedForward(ACTIVATIONS[name]).double()
    hidden = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected, found = part.plainly(hidden), part(hidden)
    torch.testing.assert_close(found, expected)
    gradient, inputs = torch.randn_like(expected), (hidden, *part.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, gradient), torch.autograd.grad(expected, inputs, gradient)
    )


def test_the_feed_forward_part_keeps_only_its_input_and_drops_while_training() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(50, 6, requires_grad=True)
    dropping = FeedForward(dropout=0.5)
    assert not torch.equal(dropping(hidden), dropping(hidden))
    assert torch.equal(dropping.eval()(hidden), dropping(hidden))
    assert kept_bytes(FeedForward(), hidden) == 0


def test_frozen_weights_get_no_gradient_but_hand_one_on() -> None:
    part = FeedForward()
    part.widening.requires_grad_(False)
    part.narrowing.bias.requires_grad_(False)
    hidden = torch.randn(3, 6, requires_grad=True)
    expected = torch.autograd.grad(part.plainly(hidden).sum(), (hidden, part.narrowing.weight))
    part(hidden).sum().backward()
    assert part.widening.weight.grad is part.widening.bias.grad is part.narrowing.bias.grad is None
    torch.testing.assert_close((hidden.grad, part.narrowing.weight.grad), expected)


def test_autocast_gives_gradients_in_the_dtype_of_the_weights() -> None:
    torch.manual_seed(0)
    part, hidden = FeedForward(), torch.randn(3, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = part(hidden)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    expected = torch.autograd.grad(part.plainly(hidden).sum(), (hidden, part.widening.weight))
    assert part.widening.weight.grad is not None
    assert part.widening.weight.grad.dtype == torch.float32
    torch.testing.assert_close((hidden.grad, part.widening.weight.grad), expected, rtol=2e-2, atol=2e-2)


def test_dropout_drops_the_same_elements_backward_and_keeps_no_mask() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(64, 100, requires_grad=True)
    output = Dropout(0.3)(hidden)
    (gradient,) = torch.autograd.grad(output.sum(), hidden)
    torch.testing.assert_close(output, hidden * gradient)
    torch.testing.assert_close(gradient.unique(), torch.tensor([0, 1 / 0.7]), rtol=1e-4, atol=0)
    assert kept_bytes(Dropout(0.3), hidden) == 0
    assert Dropout(0.3).eval()(hidden) is hidden


def test_what_dropout_leaves_of_a_branch_is_added_with_gradients_for_both() -> None:
    torch.manual_seed(0)
    branch, hidden = (torch.randn(9, 70, requires_grad=True) for _ in range(2))
    dropout = Dropout(0.3)
    total = dropout.added(branch, hidden)
    of_branch, of_hidden = torch.autograd.grad(total, (branch, hidden), torch.full_like(total, 2))
    torch.testing.assert_close(of_branch.unique(), torch.tensor([0, 2 / 0.7]), rtol=1e-4, atol=0)
    torch.testing.assert_close(total, hidden + branch * of_branch / 2)
    assert (of_hidden == 2).all()
    assert torch.equal(dropout.eval().added(branch, hidden), branch + hidden)


@pytest.mark.parametrize("dropout", [0.0001, 0.1, 0.5, 0.97])
def test_draws_have_the_right_share_are_made_up_for_and_are_independent_of_each_other(dropout: float) -> None:
    draws = draw_kept(torch.empty(1001, 999), dropout, torch.Generator().manual_seed(1))
    share = (draws == 0).double().mean().item()
    count = draws.numel()
    assert abs(share - dropout) < 1e-5 + 5 * (dropout * (1 - dropout) / count) ** 0.5
    assert (
        abs(draws.double().mean().item() * factor_of_kept(dropout) - 1) < 5 * (dropout / (1 - dropout) / count) ** 0.5
    )
    # Draws that share a random number must not follow each other.
    flat = (draws == 0).double().flatten() - share
    for distance in (1, 2, 3, 4):
        correlation = (flat[:-distance] * flat[distance:]).mean() / max(share * (1 - share), 1e-12)
        assert abs(correlation.item()) < 5 / count**0.5


def test_draws_repeat_with_the_state_of_the_generator() -> None:
    first, second = (draw_kept(torch.empty(7, 13), 0.4, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
