"""The attention as other software meets it: custom operators, torch.compile, checkpointing, a bare import."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import library
from torch.utils.checkpoint import checkpoint

from longformer.attention import banded_attention
from longformer.attention.blocked.op import forward_operator

MASK = torch.arange(90).lt(80).expand(2, 90)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"left": 7, "right": 3},
    "causal": {"left": 9, "right": 0, "causal": True, "dilation": [1, 2]},
    "masks": {"left": 4, "right": 4, "token_mask": MASK, "global_mask": torch.arange(90).lt(2).expand(2, 90)},
    "dropout": {"left": 7, "right": 3, "dropout": 0.2},
}


def tensors(positions: int = 90) -> list[torch.Tensor]:
    return [torch.randn(2, positions, 2, 8, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("name", OPTIONS)
def test_opcheck_accepts_the_operator(name: str) -> None:
    options = OPTIONS[name]
    masks = (options.get("token_mask"), options.get("global_mask"))
    dilations, dropout = options.get("dilation", [1, 1]), options.get("dropout", 0.0)
    seed = torch.tensor(5) if dropout else None
    rest = (options["left"], options["right"], dilations, options.get("causal", False), 0.3, dropout)
    library.opcheck(forward_operator, (tensors(), *masks, None, None, None, seed, *rest))


def test_opcheck_accepts_the_operator_with_packed_sequences() -> None:
    inputs, bounds = [tensor[:1] for tensor in tensors()], torch.tensor([0, 40, 41, 88], dtype=torch.int32)
    library.opcheck(forward_operator, (inputs, None, None, bounds, None, None, None, 7, 3, [1, 2], False, 0.3, 0.0))


def test_opcheck_accepts_the_operator_with_a_relative_term() -> None:
    relative = (torch.randn(2, 90, 2, 8, requires_grad=True), torch.randn(6, 2, 8, requires_grad=True))
    arguments = (tensors(), None, None, None, *relative, None, 5, 0, [1, 1], True, 0.3, 0.0)
    library.opcheck(forward_operator, arguments)


def test_opcheck_accepts_the_operator_with_packed_projections_whose_gradient_is_packed() -> None:
    packed = torch.randn(2, 90, 3, 2, 8, requires_grad=True)
    arguments = (None, None, None, None, None, None, 7, 3, [1, 2], False, 0.3, 0.0)
    library.opcheck(forward_operator, ([packed], *arguments))
    outputs = (forward_operator(each, *arguments) for each in ([packed], list(packed.unbind(2))))
    ours, expected = (torch.autograd.grad(output.square().sum(), packed)[0] for output in outputs)
    assert torch.equal(ours, expected)


def test_a_layer_compiles_whole_and_serves_new_lengths_without_compiling_again() -> None:
    torch.manual_seed(0)
    projection = torch.nn.Linear(16, 48)
    compilations = 0

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        nonlocal compilations
        compilations += 1
        return graph.forward

    def layer(hidden: torch.Tensor) -> torch.Tensor:
        packed = projection(hidden).unflatten(-1, (3, 2, 8))
        return banded_attention(*packed.unbind(2), left=5, right=0, causal=True, dilation=[1, 2])

    compiled = torch.compile(layer, backend=count, fullgraph=True, dynamic=True)
    for positions in (40, 71, 133, 64):
        hidden = torch.randn(2, positions, 16)
        torch.testing.assert_close(compiled(hidden), layer(hidden))
    assert compilations == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_activation_checkpointing_gives_the_same_gradients(name: str) -> None:
    torch.manual_seed(0)
    inputs = tensors()

    def attend(*qkv: torch.Tensor) -> torch.Tensor:
        return banded_attention(*qkv, **OPTIONS[name])

    torch.manual_seed(1)
    expected = torch.autograd.grad(attend(*inputs).square().sum(), inputs)
    torch.manual_seed(1)
    found = torch.autograd.grad(checkpoint(attend, *inputs, use_reentrant=False).square().sum(), inputs)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_importing_attention_needs_nothing_heavier_than_torch() -> None:
    check = (
        "import sys, torch; before = set(sys.modules); import longformer.attention;"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names) - {'longformer', 'torch', 'numpy'}))"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
