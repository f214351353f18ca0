"""Global attention on the kernels, against dense attention in float64: keys split among programs, results merged."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies
from torch import Tensor, library

from longformer.attention.fused import fused_global_attention, tiles
from longformer.attention.metadata import AttentionMetadata
from tests.attention.fused.cases import DEVICE, SMALL, TOLERANCE
from tests.attention.fused.test_dropout import kept


def dense(query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, keep: Tensor | None) -> Tensor:
    scores = torch.einsum("bghd,bjhd->bhgj", query, key) * 0.3
    if real is not None:
        scores = scores.masked_fill(~real[:, None, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    if real is not None:
        weights = weights * real[:, None, None]
    if keep is not None:
        weights = weights * keep
    return torch.einsum("bhgj,bjhd->bghd", weights, value)


def compare(count: int, positions: int, padding: str, dtype: torch.dtype, chunk: int, dropout: float = 0.0) -> None:
    generator = torch.Generator().manual_seed(positions)

    def draw(length: int) -> torch.Tensor:
        return torch.randn(2, length, 2, 24, generator=generator).to(DEVICE, dtype)

    leaves = [draw(length).requires_grad_() for length in (count, positions, positions)]
    arriving, place = draw(count), torch.arange(positions, device=DEVICE)
    real = {
        "none": None,
        "left": place >= torch.tensor([[0], [positions // 2]], device=DEVICE),
        "holes": torch.rand(2, positions, generator=generator).to(DEVICE) > 0.3,
        "all": (place < torch.tensor([[positions], [0]], device=DEVICE)),
    }[padding]
    torch.manual_seed(5)
    with patch.object(tiles, "choose_tiles", lambda *_: SMALL), patch.object(tiles, "CHUNK", chunk):
        ours = fused_global_attention(*leaves, scale=0.3, dropout=dropout, layout=AttentionMetadata(real).layout)
        found = [ours, *torch.autograd.grad(ours, leaves, arriving)]
    keep = None
    if dropout:
        torch.manual_seed(5)
        seed = int(torch.randint(2**62, (1,), device=DEVICE))
        length = max(count, positions)
        keep = kept(seed, dropout, batch=2, heads=2, positions=length)[:, :, :count, :positions] / (1 - dropout)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = dense(*exact, real, keep)
    wanted = [expected, *torch.autograd.grad(expected, exact, arriving.double())]
    for name, one, other in zip(("output", "query", "key", "value"), found, wanted, strict=True):
        error = (one - other).abs().max() / (1 + other.abs().max())
        assert error <= TOLERANCE[dtype], f"{name} is off by {error:.1e}"


@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(
    count=strategies.integers(1, 20),
    positions=strategies.integers(1, 50),
    padding=strategies.sampled_from(["none", "left", "holes", "all"]),
    dtype=strategies.sampled_from([torch.float32, torch.float16]),
    chunk=strategies.sampled_from([16, 32, tiles.CHUNK]),
)
def test_global_attention_equals_dense_attention_with_all_gradients(
    count: int, positions: int, padding: str, dtype: torch.dtype, chunk: int
) -> None:
    compare(count, positions, padding, dtype, chunk)


def test_global_attention_drops_the_same_weights_forward_and_backward() -> None:
    compare(18, 37, "left", torch.float32, chunk=16, dropout=0.4)


def test_operator_of_global_attention_keeps_the_contract_of_pytorch() -> None:
    from longformer.attention.fused.global_op import fused_global_attention_op

    def leaf(length: int) -> torch.Tensor:
        return torch.randn(2, length, 2, 16, device=DEVICE, requires_grad=True)

    layout = AttentionMetadata(torch.arange(20, device=DEVICE).expand(2, -1) < 15).layout.tensors()
    with patch.object(tiles, "choose_tiles", lambda *_: SMALL):
        library.opcheck(fused_global_attention_op, (leaf(3), leaf(20), leaf(20), layout, 0, None, 0.25, 0.0))


def test_a_tensor_the_kernels_cannot_take_is_refused() -> None:
    tensor = torch.zeros(1, 4, 1, 16, dtype=torch.float64, device=DEVICE)
    with pytest.raises(ValueError, match="query must be float32"):
        fused_global_attention(tensor, tensor, tensor, scale=1.0, dropout=0.0, layout=None)
