"""Dropout: every kernel draws the same weights from (batch, head, query, key), whatever its tiles."""

import itertools
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from longformer.attention.fused import tiles
from longformer.attention.metadata import AttentionMetadata
from tests.attention.fused.cases import DEVICE, SMALL, SMALL_RELATIVE

MASK_32 = 0xFFFFFFFF


def product(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and lower 32 bits of a product."""
    high = (factor * (word >> 16) + (factor * (word & 0xFFFF) >> 16)) >> 16
    return high & MASK_32, factor * word & MASK_32


def philox_4(seed: int, first: int, second: int) -> int:
    """Philox-4x32-10 (Salmon et al. 2011) in plain integers: its first word for the counter (first, second, 0, 0)."""
    key, words = [seed & MASK_32, seed >> 32], [first, second, 0, 0]
    for _ in range(10):
        left, right = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [right >> 32 ^ words[1] ^ key[0], right & MASK_32, left >> 32 ^ words[3] ^ key[1], left & MASK_32]
        key = [(key[0] + 0x9E3779B9) & MASK_32, (key[1] + 0xBB67AE85) & MASK_32]
    return words[0]


def philox_2(key: int, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Philox-2x32-7 in plain integers: both words for every counter."""
    for _ in range(7):
        high, low = product(0xD256D193, first)
        first, second, key = high ^ key ^ second, low, (key + 0x9E3779B9) & MASK_32
    return first, second


def kept(
    seed: int, rate: float, batch: int, heads: int, positions: int, dilations: tuple[int, ...] = (1, 1, 1, 1)
) -> Tensor:
    """Say which weights (batch, heads, query, key) of the band survive."""
    token = torch.arange(positions)
    result = torch.empty(batch, heads, positions, positions, dtype=torch.bool)
    for example, head in itertools.product(range(batch), range(heads)):
        # Positions in a stride group; four pairs, 8 of them apart, share a draw.
        position = token // dilations[head]
        shared = token - (position & 8) * dilations[head]
        words = philox_2(philox_4(seed, head, example), shared[None, :], shared[:, None])
        word = torch.where((position & 8)[None, :] == 0, *words)
        half = torch.where((position & 8)[:, None] == 0, word >> 16, word & 0xFFFF)
        result[example, head] = half >= round(rate * 65_536)
    return result


def kept_globals(seed: int, rate: float, batch: int, heads: int, positions: int, slots: int) -> Tensor:
    """Say which weights (batch, heads, query, slot) of global keys survive."""
    slot, token = torch.arange(slots)[None, :], torch.arange(positions)[:, None]
    result = torch.empty(batch, heads, positions, slots, dtype=torch.bool)
    for example, head in itertools.product(range(batch), range(heads)):
        words = philox_2(philox_4(seed, head, example), positions + (slot & ~9), token)
        word = torch.where(slot & 8 == 0, *words)
        result[example, head] = torch.where(slot & 1 == 0, word >> 16, word & 0xFFFF) >= round(rate * 65_536)
    return result


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
            leaves[:3], leaves[3:], layout, 0, torch.tensor([seed], device=DEVICE), 7, 4, (1, 2), False, 0.3, rate
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
    survives = kept(seed, rate, batch, heads, positions, (1, 2))
    if is_global.any():
        chosen = is_global[0].nonzero().squeeze(1)
        survives[..., chosen] = kept_globals(seed, rate, batch, heads, positions, len(chosen))
    weights = weights * survives / (1 - rate)
    expected = torch.einsum("bhij,bjhd->bihd", weights, exact[2])
    expected_gradients = torch.autograd.grad(expected, exact, arriving.double())
    for ours, right in zip((output, *gradients), (expected, *expected_gradients), strict=True):
        torch.testing.assert_close(ours.detach().cpu().double(), right.detach(), atol=3e-5, rtol=3e-5)


def test_share_of_kept_weights_is_one_minus_the_rate() -> None:
    share = kept(seed=99, rate=0.1, batch=2, heads=4, positions=200).double().mean().item()
    # 320,000 draws: four standard deviations, and the rate in steps of 1/65,536.
    assert abs(share - 0.9) < 4 * (0.09 / 320_000) ** 0.5 + 2**-17
