"""Residual connections in chunks give the values and gradients of their modules one after another, and save less."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.cpu.residual import is_invertible
from longformer.models.common.layers import ACTIVATIONS, Activation, FeedForward, add_and_norm
from tests.test_encoder_cost import kept_bytes

WIDTH, INNER = 6, 10
Computation = Callable[..., Tensor]


class Connection(nn.Module):
    """A residual connection whose connection reads the hidden states, or something else in the shape of them."""

    def __init__(self, *, kind: str = "feed-forward", activation: Activation = functional.gelu) -> None:
        super().__init__()
        self.widening, self.narrowing = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.mixing, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-5)
        self.dropout, self.inner_dropout = nn.Dropout(0.0), 0.0
        self.kind, self.activation, self.normalises = kind, activation, True
        nn.init.normal_(self.norm.weight, mean=1)
        nn.init.normal_(self.norm.bias)

    def sublayer(self) -> nn.Linear | FeedForward:
        if self.kind == "projection":
            return self.mixing
        return FeedForward(self.widening, self.activation, self.narrowing, dropout=self.inner_dropout)

    def forward(self, hidden: Tensor, read: Tensor | None = None) -> Tensor:
        norm = self.norm if self.normalises else None
        read = hidden if read is None else read
        return add_and_norm(hidden, self.sublayer(), read, dropout=self.dropout, norm=norm)

    def plainly(self, hidden: Tensor, read: Tensor | None = None) -> Tensor:
        read = hidden if read is None else read
        if self.kind == "projection":
            total = hidden + self.mixing(read)
        else:
            total = hidden + self.narrowing(self.activation(self.widening(read)))
        return self.norm(total) if self.normalises else total

    def used(self) -> list[Tensor]:
        """Return the weights that the connection computes with."""
        layers = [self.mixing] if self.kind == "projection" else [self.widening, self.narrowing]
        return [each for layer in (*layers, *([self.norm] if self.normalises else [])) for each in layer.parameters()]


def compare(
    connection: Connection, found: Computation, *tensors: Tensor, expected: Computation, **tolerance: float
) -> None:
    """Hold values and all gradients of one computation against those of another."""
    results = [compute(*tensors) for compute in (found, expected)]
    torch.testing.assert_close(*results, **tolerance)
    gradient, inputs = torch.randn_like(results[0]), (*tensors, *connection.used())
    torch.testing.assert_close(*(torch.autograd.grad(each, inputs, gradient) for each in results), **tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(0, WIDTH), (5, WIDTH), (2, 3, WIDTH), (2500, WIDTH)])
def test_every_activation_and_number_of_positions(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    connection = Connection(activation=ACTIVATIONS[name]).double()
    hidden = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    compare(connection, connection, hidden, expected=connection.plainly)


@pytest.mark.parametrize("kind", ["feed-forward", "projection"])
@pytest.mark.parametrize("reads_hidden", [True, False])
@pytest.mark.parametrize("normalises", [True, False])
@pytest.mark.parametrize("undone", [True, False])
def test_every_kind_of_sublayer(kind: str, reads_hidden: bool, normalises: bool, undone: bool) -> None:
    torch.manual_seed(0)
    connection = Connection(kind=kind)
    connection.normalises = normalises
    with torch.no_grad():
        connection.norm.weight.copy_(torch.tensor([1.0, -0.2, 3.0, 0.5, -2.0, 0.1 if undone else 0.0]))
    assert is_invertible(connection.norm.weight, connection.norm.bias) == undone
    tensors = [torch.randn(7, WIDTH, requires_grad=True) for _ in range(1 if reads_hidden else 2)]
    compare(connection, connection, *tensors, expected=connection.plainly, rtol=1e-4, atol=1e-5)


def test_what_is_dropped_forward_is_dropped_backward() -> None:
    torch.manual_seed(0)
    connection, hidden = Connection().double(), torch.randn(2500, WIDTH, dtype=torch.float64, requires_grad=True)
    connection.dropout = nn.Dropout(0.3)

    def dropping(hidden: Tensor) -> Tensor:
        torch.manual_seed(1)
        return connection(hidden)

    connection.normalises = False
    added = dropping(hidden) - hidden
    kept = (added != 0).double() / (1 - round(0.3 * 2**16) / 2**16)
    assert 0.68 < (kept > 0).double().mean() < 0.72
    torch.testing.assert_close(added, (connection.plainly(hidden) - hidden) * kept)
    connection.normalises = True

    def with_the_same_dropped(hidden: Tensor) -> Tensor:
        return connection.norm(hidden + kept * connection.narrowing(functional.gelu(connection.widening(hidden))))

    compare(connection, dropping, hidden, expected=with_the_same_dropped)
    assert torch.equal(connection.eval()(hidden), connection(hidden))


def test_only_the_result_is_kept() -> None:
    hidden = torch.randn(50, WIDTH, requires_grad=True)
    connection, statistics = Connection(), 2 * 50 * 4
    assert kept_bytes(connection, hidden) == 2 * hidden.nbytes + statistics, "what is read, and the result"
    with torch.no_grad():
        connection.norm.weight[0] = 0
    assert kept_bytes(connection, hidden) == 3 * hidden.nbytes + statistics, "the sum cannot be told from the result"


def test_a_dropout_inside_the_feed_forward_part_drops_while_training() -> None:
    connection, hidden = Connection(), torch.randn(50, WIDTH)
    connection.inner_dropout = 0.5
    assert not torch.equal(connection(hidden), connection(hidden))


def test_frozen_weights_get_no_gradient_but_hand_one_on() -> None:
    connection, hidden = Connection(), torch.randn(3, WIDTH, requires_grad=True)
    frozen = [*connection.widening.parameters(), connection.narrowing.bias, connection.norm.weight]
    for weight in frozen:
        weight.requires_grad_(False)
    connection(hidden).square().sum().backward()
    assert all(weight.grad is None for weight in frozen)
    found = hidden.grad, connection.narrowing.weight.grad, connection.norm.bias.grad
    inputs = hidden, connection.narrowing.weight, connection.norm.bias
    expected = torch.autograd.grad(connection.plainly(hidden).square().sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", ["bfloat16", "autocast"])
def test_half_precision_is_as_near_to_float32_as_its_modules(setting: str) -> None:
    torch.manual_seed(0)
    connection, hidden = Connection(), torch.randn(1100, WIDTH, requires_grad=True)

    def computed(compute: Callable[[Tensor], Tensor], hidden: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast"):
            result = compute(hidden)
        return result, *torch.autograd.grad(result.float().sin().sum(), (hidden, *connection.used()))

    expected = connection.plainly(hidden)
    expected = expected, *torch.autograd.grad(expected.sin().sum(), (hidden, *connection.used()))
    if setting == "bfloat16":
        connection, hidden = connection.bfloat16(), hidden.detach().bfloat16().requires_grad_()
    found, of_modules = computed(connection, hidden), computed(connection.plainly, hidden)
    for given, peer, right in zip(found, of_modules, expected, strict=True):
        assert given.dtype == peer.dtype
        assert (given.float() - right).norm() < 1.5 * (peer.float() - right).norm() + 0.01 * right.norm()


def test_replaced_and_hooked_layers_are_called() -> None:
    class Adapted(nn.Linear):
        def forward(self, tensor: Tensor) -> Tensor:
            return super().forward(tensor) + 1

    hidden, seen = torch.randn(5, WIDTH), list[Tensor]()
    connection = Connection()
    before = connection(hidden)
    connection.narrowing.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    torch.testing.assert_close(connection(hidden), before)
    assert len(seen) == 1
    connection.widening = Adapted(WIDTH, INNER)
    torch.testing.assert_close(connection(hidden), connection.plainly(hidden))
