"""Dropout: every kernel draws the same weights from (batch, head, query, key), whatever its tiles."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from longformer.attention.fused import tiles
from longformer.attention.metadata import AttentionMetadata
from tests.attention.fused.cases import DEVICE, SMALL, SMALL_RELATIVE

MASK_32 = 0xFFFFFFFF


def philox(seed: int, counters: list[Tensor], rounds: int) -> Tensor:
    """Philox-4x32 (Salmon et al. 2011) in plain integers: its first word for every counter."""
    key = [seed & MASK_32, seed >> 32]
    counters = [counter.to(torch.int64) for counter in counters]

    def multiply(factor: int, word: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (factor * (word >> 16) + (factor * (word & 0xFFFF) >> 16)) >> 16, factor * word

    for _ in range(rounds):
        high_0, low_0 = multiply(0xD2511F53, counters[0])
        high_2, low_2 = multiply(0xCD9E8D57, counters[2])
        counters = [high_2 ^ counters[1] ^ key[0], low_2, high_0 ^ counters[3] ^ key[1], low_0]
        counters = [counter & MASK_32 for counter in counters]
        key = [(key[0] + 0x9E3779B9) & MASK_32, (key[1] + 0xBB67AE85) & MASK_32]
    return counters[0]


def kept(seed: int, rate: float, batch: int, heads: int, positions: int) -> Tensor:
    """Say which weights (batch, heads, query, key) survive."""
    position = torch.arange(positions)
    shape = (batch, heads, positions, positions)
    words = philox(
        seed,
        [
            position.expand(shape),
            position[:, None].expand(shape),
            torch.arange(heads)[:, None, None].expand(shape),
            torch.arange(batch)[:, None, None, None].expand(shape),
        ],
        rounds=7,
    )
    signed = torch.where(words >= 2**31, ~words & 0x7FFFFFFF, words)
    return signed * 4.6566127342e-10 >= rate


@pytest.mark.parametrize("features", ["globals", "relative"])
def test_dropped_weights_are_those_of_philox_forward_and_backward(features: str) -> None:
    from longformer.attention.fused.op import fused_attention_op

    batch, positions, heads, head_dim, seed, rate = 2, 37, 2, 16, 2**40 + 12345, 0.4
    torch.manual_seed(0)
    inputs = [torch.randn(batch, positions, heads, head_dim) for _ in range(3)]
    relative, is_global, layout = [], torch.zeros(batch, positions, dtype=torch.bool), ()
    if features == "relative":
        relative = [torch.randn(batch, positions, heads, head_dim), torch.randn(12, heads, head_dim)]
    else:
        is_global[:, ::9] = True
        layout = AttentionMetadata.of(None, is_global.to(DEVICE)).layout.tensors()
    arriving = torch.randn(batch, positions, heads, head_dim)

    leaves = [tensor.to(DEVICE).requires_grad_() for tensor in inputs + relative]
    kind = SMALL_RELATIVE if relative else SMALL
    with patch.object(tiles, "choose_tiles", lambda *_: kind):
        output, _ = fused_attention_op(
            leaves[:3], leaves[3:], layout, torch.tensor([seed], device=DEVICE), 7, 4, (1, 2), False, 0.3, rate
        )
        gradients = torch.autograd.grad(output, leaves, arriving.to(DEVICE))

    exact = [tensor.double().requires_grad_() for tensor in inputs + relative]
    distance = torch.arange(positions) - torch.arange(positions)[:, None]
    dilation = torch.tensor([1, 2])[:, None, None]
    visible = (distance % dilation == 0) & (distance >= -7 * dilation) & (distance <= 4 * dilation)
    visible = visible | is_global[:, None, None, :]
    scores = torch.einsum("bihd,bjhd->bhij", exact[0], exact[1])
    if relative:
        column = (distance.div(dilation, rounding_mode="floor") + 7).clamp(0, 11).expand_as(scores)
        scores = scores + torch.einsum("bihd,mhd->bhim", exact[3], exact[4]).gather(-1, column)
    weights = (scores * 0.3).masked_fill(~visible, float("-inf")).softmax(-1)
    weights = weights * kept(seed, rate, batch, heads, positions) / (1 - rate)
    expected = torch.einsum("bhij,bjhd->bihd", weights, exact[2])
    expected_gradients = torch.autograd.grad(expected, exact, arriving.double())
    for ours, right in zip((output, *gradients), (expected, *expected_gradients), strict=True):
        torch.testing.assert_close(ours.detach().cpu().double(), right.detach(), atol=3e-5, rtol=3e-5)


def test_share_of_kept_weights_is_one_minus_the_rate() -> None:
    share = kept(seed=99, rate=0.1, batch=2, heads=4, positions=200).double().mean().item()
    # 320,000 draws: four standard deviations.
    assert abs(share - 0.9) < 4 * (0.09 / 320_000) ** 0.5
