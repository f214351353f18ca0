"""Branches added by rows give the values and gradients of their modules one after another, and keep less."""

from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.cpu import residual, sublayers
from longformer.cpu.buffer_pool import new_empty
from longformer.cpu.dropout import Dropout
from longformer.cpu.linear import product
from longformer.cpu.residual import add_branch, can_be_undone
from longformer.cpu.sublayers import Activation, Branch, FeedForward, Projection
from longformer.models.longformer.layers import ACTIVATIONS
from tests.test_encoder_cost import kept_bytes

WIDTH, INNER = 6, 10
Computation = Callable[..., Tensor]


class Sublayer(nn.Module):
    """A branch that reads the hidden states, or something else in the shape of them."""

    def __init__(self, *, branch: str = "feed-forward", activation: Activation = functional.gelu) -> None:
        super().__init__()
        self.widening, self.narrowing = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.mixing, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-5)
        self.dropout, self.inner_dropout, self.keeps_inside = Dropout(0.0), 0.0, False
        self.kind, self.activation, self.normalises = branch, activation, True
        nn.init.normal_(self.norm.weight, mean=1)
        nn.init.normal_(self.norm.bias)

    def branch(self) -> Branch:
        if self.kind == "projection":
            return Projection(self.mixing)
        options = {"dropout": self.inner_dropout, "keeps_inside": self.keeps_inside}
        return FeedForward(self.widening, self.narrowing, self.activation, **options)

    def forward(self, hidden: Tensor, read: Tensor | None = None) -> Tensor:
        norm = self.norm if self.normalises else None
        read = hidden if read is None else read
        return add_branch(hidden, self.branch(), read, dropout=self.dropout, norm=norm)

    def plainly(self, hidden: Tensor, read: Tensor | None = None) -> Tensor:
        read = hidden if read is None else read
        if self.kind == "projection":
            total = hidden + self.mixing(read)
        else:
            total = hidden + self.narrowing(self.activation(self.widening(read)))
        return self.norm(total) if self.normalises else total

    def used(self) -> list[Tensor]:
        """Return the weights that the sublayer computes with."""
        layers = [self.mixing] if self.kind == "projection" else [self.widening, self.narrowing]
        return [each for layer in (*layers, *([self.norm] if self.normalises else [])) for each in layer.parameters()]


def compare(
    sublayer: Sublayer, found: Computation, *tensors: Tensor, expected: Computation, **tolerance: float
) -> None:
    """Hold values and all gradients of one computation against those of another."""
    results = [compute(*tensors) for compute in (found, expected)]
    torch.testing.assert_close(*results, **tolerance)
    gradient, inputs = torch.randn_like(results[0]), (*tensors, *sublayer.used())
    torch.testing.assert_close(*(torch.autograd.grad(each, inputs, gradient) for each in results), **tolerance)


@pytest.mark.parametrize("keeps_inside", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(0, WIDTH), (5, WIDTH), (2, 3, WIDTH), (2500, WIDTH)])
def test_every_activation_and_number_of_rows(name: str, shape: tuple[int, ...], keeps_inside: bool) -> None:
    torch.manual_seed(0)
    sublayer = Sublayer(activation=ACTIVATIONS[name]).double()
    sublayer.keeps_inside = keeps_inside
    hidden = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    compare(sublayer, sublayer, hidden, expected=sublayer.plainly)


@pytest.mark.parametrize("branch", ["feed-forward", "projection"])
@pytest.mark.parametrize("reads_hidden", [True, False])
@pytest.mark.parametrize("normalises", [True, False])
@pytest.mark.parametrize("undone", [True, False])
def test_every_kind_of_sublayer(branch: str, reads_hidden: bool, normalises: bool, undone: bool) -> None:
    torch.manual_seed(0)
    sublayer = Sublayer(branch=branch)
    sublayer.normalises = normalises
    with torch.no_grad():
        sublayer.norm.weight.copy_(torch.tensor([1.0, -0.2, 3.0, 0.5, -2.0, 0.1 if undone else 0.0]))
    assert can_be_undone(sublayer.norm.weight, sublayer.norm.bias) == undone
    tensors = [torch.randn(7, WIDTH, requires_grad=True) for _ in range(1 if reads_hidden else 2)]
    compare(sublayer, sublayer, *tensors, expected=sublayer.plainly, rtol=1e-4, atol=1e-5)


def test_what_is_dropped_forward_is_dropped_backward() -> None:
    torch.manual_seed(0)
    sublayer, hidden = Sublayer().double(), torch.randn(2500, WIDTH, dtype=torch.float64, requires_grad=True)
    sublayer.dropout = Dropout(0.3)

    def dropping(hidden: Tensor) -> Tensor:
        torch.manual_seed(1)
        return sublayer(hidden)

    sublayer.normalises = False
    branch = dropping(hidden) - hidden
    kept = (branch != 0).double() / (1 - round(0.3 * 2**16) / 2**16)
    assert 0.68 < (kept > 0).double().mean() < 0.72
    torch.testing.assert_close(branch, (sublayer.plainly(hidden) - hidden) * kept)
    sublayer.normalises = True

    def with_the_same_dropped(hidden: Tensor) -> Tensor:
        return sublayer.norm(hidden + kept * sublayer.narrowing(functional.gelu(sublayer.widening(hidden))))

    compare(sublayer, dropping, hidden, expected=with_the_same_dropped)
    assert torch.equal(sublayer.eval()(hidden), sublayer(hidden))


def test_only_the_result_is_kept() -> None:
    hidden = torch.randn(50, WIDTH, requires_grad=True)
    sublayer, statistics = Sublayer(), 2 * 50 * 4
    assert kept_bytes(sublayer, hidden) == 2 * hidden.nbytes + statistics, "what is read, and the result"
    with torch.no_grad():
        sublayer.norm.weight[0] = 0
    assert kept_bytes(sublayer, hidden) == 3 * hidden.nbytes + statistics, "the sum cannot be told from the result"


def test_the_inside_is_kept_on_request_and_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, sublayer = torch.randn(50, WIDTH, requires_grad=True), Sublayer()
    outer = kept_bytes(sublayer, hidden)
    gradient = torch.autograd.grad(sublayer(hidden).square().sum(), hidden)[0]
    sublayer.keeps_inside = True
    assert kept_bytes(sublayer, hidden) == outer + 50 * INNER * 4
    result = sublayer(hidden).square().sum()
    monkeypatch.setattr(sublayers, "product", multiply := Mock(side_effect=product))
    torch.testing.assert_close(torch.autograd.grad(result, (hidden, *sublayer.used()))[0], gradient)
    assert multiply.call_count == 4, "the gradients of two inputs and of two weights"


def test_nothing_is_set_aside_where_nothing_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, sublayer = torch.randn(50, WIDTH, requires_grad=True), Sublayer()
    sublayer.keeps_inside = True
    monkeypatch.setattr(residual, "new_empty", set_aside := Mock(side_effect=new_empty))
    with torch.no_grad():
        sublayer(hidden)
    assert not set_aside.called
    sublayer(hidden)
    assert set_aside.called


def test_a_dropout_inside_the_branch_drops_while_training() -> None:
    sublayer, hidden = Sublayer(), torch.randn(50, WIDTH)
    sublayer.inner_dropout = 0.5
    assert not torch.equal(sublayer(hidden), sublayer(hidden))


def test_frozen_weights_get_no_gradient_but_hand_one_on() -> None:
    sublayer, hidden = Sublayer(), torch.randn(3, WIDTH, requires_grad=True)
    frozen = [*sublayer.widening.parameters(), sublayer.narrowing.bias, sublayer.norm.weight]
    for weight in frozen:
        weight.requires_grad_(False)
    sublayer(hidden).square().sum().backward()
    assert all(weight.grad is None for weight in frozen)
    found = hidden.grad, sublayer.narrowing.weight.grad, sublayer.norm.bias.grad
    inputs = hidden, sublayer.narrowing.weight, sublayer.norm.bias
    expected = torch.autograd.grad(sublayer.plainly(hidden).square().sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", ["bfloat16", "autocast"])
def test_half_precision_is_as_near_to_float32_as_its_modules(setting: str) -> None:
    torch.manual_seed(0)
    sublayer, hidden = Sublayer(), torch.randn(1100, WIDTH, requires_grad=True)

    def computed(compute: Callable[[Tensor], Tensor], hidden: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast"):
            result = compute(hidden)
        return result, *torch.autograd.grad(result.float().sin().sum(), (hidden, *sublayer.used()))

    expected = sublayer.plainly(hidden)
    expected = expected, *torch.autograd.grad(expected.sin().sum(), (hidden, *sublayer.used()))
    if setting == "bfloat16":
        sublayer, hidden = sublayer.bfloat16(), hidden.detach().bfloat16().requires_grad_()
    found, of_modules = computed(sublayer, hidden), computed(sublayer.plainly, hidden)
    for given, peer, right in zip(found, of_modules, expected, strict=True):
        assert given.dtype == peer.dtype
        assert (given.float() - right).norm() < 1.5 * (peer.float() - right).norm() + 0.01 * right.norm()


def test_replaced_and_hooked_layers_are_called() -> None:
    class Adapted(nn.Linear):
        def forward(self, tensor: Tensor) -> Tensor:
            return super().forward(tensor) + 1

    hidden, seen = torch.randn(5, WIDTH), list[Tensor]()
    sublayer = Sublayer()
    before = sublayer(hidden)
    sublayer.narrowing.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    torch.testing.assert_close(sublayer(hidden), before)
    assert len(seen) == 1
    sublayer.widening = Adapted(WIDTH, INNER)
    torch.testing.assert_close(sublayer(hidden), sublayer.plainly(hidden))


def test_activating_again_gives_the_gradients_of_keeping() -> None:
    torch.manual_seed(0)
    sublayer = Sublayer().double()
    sublayer.normalises = False
    hidden = torch.randn(3, 4, WIDTH, dtype=torch.float64, requires_grad=True)
    compare(sublayer, lambda hidden: hidden + sublayer.branch()(hidden), hidden, expected=sublayer.plainly)
