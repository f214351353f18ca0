"""The kernels on packed sequences: what each of them alone gives in float64, dropout as in a padded batch."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, library

from longformer.attention import banded_attention
from longformer.attention.fused import fused_global_attention, tiles
from longformer.attention.fused.layout import BatchLayout
from tests.attention.fused.cases import DEVICE, SMALL, SMALL_RELATIVE, TOLERANCE
from tests.attention.packing_cases import one_by_one, packed


@pytest.fixture(autouse=True)
def _small_tiles():
    with patch.object(tiles, "choose_tiles", lambda *arguments: SMALL_RELATIVE if "relative" in arguments else SMALL):
        yield


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE, dtype)


CASES = {
    "plain": ([37, 0, 1, 18], 2, {"left": 5, "right": 7}),
    "causal and dilated": ([20, 3, 29], 0, {"left": 6, "right": 0, "causal": True, "dilation": (3, 5)}),
    "global keys": ([2, 40, 21], 1, {"left": 4, "right": 4, "dilation": (1, 2)}),
    "half precision": ([33, 5], 1, {"left": 9, "right": 2}),
    "relative": ([17, 1, 25], 3, {"left": 6, "right": 3, "dilation": (2, 1)}),
}


@pytest.mark.parametrize("name", CASES)
def test_packed_sequences_give_the_values_and_gradients_of_each_alone(name: str) -> None:
    lengths, behind, options = CASES[name]
    dtype, tokens = torch.float16 if name == "half precision" else torch.float32, sum(lengths) + behind
    inputs = list(draw(3, tokens, 2, 16, dtype=dtype).unbind(0))
    if name == "relative":
        inputs += [draw(tokens, 2, 16), draw(options["left"] + options["right"] + 1, 2, 16)]
    if name == "global keys":
        # More than the shortest sequence has tokens, and none in another.
        place = torch.arange(tokens, device=DEVICE)
        options = options | {"global_mask": (place < 42) & (place % 3 == 1)}
    case = (inputs, lengths, options, draw(tokens, 2, 16, dtype=dtype))
    for found, expected in zip(packed(*case, "fused"), one_by_one(*case, "reference"), strict=True):
        error = (found - expected).abs().max() / (1 + expected.abs().max())
        assert error <= TOLERANCE[dtype], f"off by {error:.1e}"


def test_a_sequence_draws_the_dropout_that_it_draws_in_a_padded_batch() -> None:
    lengths = [19, 30, 7]
    real = torch.arange(30, device=DEVICE) < torch.tensor(lengths, device=DEVICE)[:, None]
    padded, arriving = list(draw(3, 3, 30, 2, 16).unbind(0)), draw(3, 30, 2, 16)
    options: dict[str, Any] = {"left": 8, "right": 6, "dropout": 0.4}
    torch.manual_seed(1)
    leaves = [tensor.clone().requires_grad_() for tensor in padded]
    output = banded_attention(*leaves, **options, token_mask=real, backend="fused")
    expected = [output, *torch.autograd.grad(output, leaves, arriving)]
    torch.manual_seed(1)
    found = packed([tensor[real] for tensor in padded], lengths, options, arriving[real], "fused")
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_global_attention_to_packed_sequences_is_that_to_each_in_a_padded_batch(dropout: float) -> None:
    lengths = [19, 35, 4]
    real = torch.arange(35, device=DEVICE) < torch.tensor(lengths, device=DEVICE)[:, None]
    query, arriving, keys = draw(3, 5, 2, 16), draw(3, 5, 2, 16), draw(2, 3, 35, 2, 16)
    layouts = {
        "padded": BatchLayout.of(real, None, None),
        # One row stands behind them.
        "packed": BatchLayout.of_packed(59, torch.tensor([0, 19, 54, 58], device=DEVICE), 35, None, None, None),
    }
    found = {}
    for name, layout in layouts.items():
        given = [query, *keys.unbind(0)]
        if name == "packed":
            given[1:] = [torch.cat([each[real], draw(1, 2, 16)])[None] for each in given[1:]]
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        torch.manual_seed(2)
        output = fused_global_attention(*leaves, scale=0.3, dropout=dropout, layout=layout)
        found[name] = [output, *torch.autograd.grad(output, leaves, arriving)]
    for ours, theirs in zip(found["packed"], found["padded"], strict=True):
        if theirs.shape[1] == 35:
            theirs = torch.cat([theirs[real], torch.zeros(1, 2, 16, device=DEVICE)])[None]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_operators_keep_the_contract_of_pytorch_on_packed_sequences() -> None:
    from longformer.attention.fused.op import fused_attention_op

    bounds = torch.tensor([0, 12, 29], device=DEVICE)
    layout = BatchLayout.of_packed(30, bounds, 17, None, None, None)
    projections = [draw(1, 30, 3, 2, 16).requires_grad_()]
    arguments = (projections, [], layout.tensors(), 17, None, 5, 5, (1, 2), False, 0.25, 0.0)
    library.opcheck(fused_attention_op, arguments)
