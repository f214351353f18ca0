"""What only a GPU can show of the fused attention, with the tiles it ships: half precision, repeatability, large
offsets, the same dropout whatever the tiles, compilation."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from longformer.attention import Band, banded_attention
from longformer.attention.fused import tiles
from longformer.attention.layer import LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata
from tests.attention.fused.cases import SMALL
from tests.attention.packing_cases import one_by_one, packed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

OPTIONS = {"left": 256, "right": 256}
NAMES = ("query", "key", "value", "relative_query", "relative_key")


def call(inputs: list[Tensor], backend: str, **options: object) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = banded_attention(**dict(zip(NAMES, leaves, strict=False)), **(OPTIONS | options), backend=backend)
    generator = torch.Generator("cuda").manual_seed(1)
    arriving = torch.randn(output.shape, device="cuda", generator=generator).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, leaves, arriving)]


def draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    return [torch.randn(shape, device="cuda", generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("head_dim", [32, 64, 80, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("features", ["plain", "globals and padding", "dilated", "causal"])
def test_error_is_at_most_twice_that_of_pytorch_in_the_same_precision(
    features: str, dtype: torch.dtype, head_dim: int
) -> None:
    """PyTorch in the same precision is dense SDPA, which keeps scores and weights in that precision's product."""
    inputs = draw(2, 1500, 4, head_dim, dtype=dtype)
    options = {
        "plain": {},
        "globals and padding": {
            "token_mask": torch.arange(1500, device="cuda") < torch.tensor([[1500], [1111]], device="cuda"),
            "global_mask": (torch.arange(1500, device="cuda") % 97 == 0).expand(2, -1),
        },
        "dilated": {"dilation": (1, 1, 2, 3)},
        "causal": {"left": 512, "right": 0, "causal": True},
    }[features]
    ours = call(inputs, "fused", **options)
    exact = call([tensor.double() for tensor in inputs], "reference", **options)
    rounded = call_dense_in_precision(inputs, **options)
    for name, found, peer, right in zip(("output", "query", "key", "value"), ours, rounded, exact, strict=True):
        error, allowed = (found - right).norm(), 2 * (peer - right).norm() + 1e-6 * right.norm()
        assert error <= allowed, f"{name}: {error:.2e} where PyTorch has {(peer - right).norm():.2e}"


def call_dense_in_precision(inputs: list[Tensor], **options: object) -> list[Tensor]:
    """SDPA's plain mathematics with the visible pairs as a mask, in the inputs' own precision."""
    ones = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in inputs[:2]]
    batch, positions, heads, _ = inputs[0].shape
    # With equal scores and one-hot values, the reference's output is non-zero exactly where a pair is visible.
    identity = torch.eye(positions, device="cuda", dtype=torch.float64).expand(batch, heads, -1, -1).transpose(1, 2)
    padded = [torch.nn.functional.pad(tensor, (0, positions - tensor.shape[-1])) for tensor in ones]
    visible = banded_attention(*padded, identity, **(OPTIONS | options), backend="reference").transpose(1, 2) > 0
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    scores = torch.einsum("bihd,bjhd->bhij", leaves[0], leaves[1]).float() * inputs[0].shape[-1] ** -0.5
    weights = scores.masked_fill(~visible, torch.finfo(torch.float32).min).softmax(-1) * visible
    output = torch.einsum("bhij,bjhd->bihd", weights.to(inputs[0].dtype), leaves[2])
    generator = torch.Generator("cuda").manual_seed(1)
    arriving = torch.randn(output.shape, device="cuda", generator=generator).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, leaves, arriving)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)], ids=str
)
@pytest.mark.parametrize("head_dim", [32, 64])
def test_relative_term_is_that_of_the_reference(head_dim: int, dtype: torch.dtype, tolerance: float) -> None:
    query, key, value = draw(2, 1500, 4, head_dim, dtype=dtype)
    inputs = [query, key, value, query.flip(1), draw(201, 4, head_dim, dtype=dtype)[0]]
    options = {"left": 200, "right": 0, "causal": True, "dilation": (1, 1, 2, 3)}
    ours = call(inputs, "fused", **options)
    exact = call([tensor.double() for tensor in inputs], "reference", **options)
    for name, found, right in zip(("output", *NAMES), ours, exact, strict=True):
        assert (found - right).norm() <= tolerance * right.norm(), name


def test_dropout_is_the_same_whatever_the_tiles() -> None:
    inputs = draw(2, 700, 4, 64, dtype=torch.float32)
    results = []
    for table in (tiles.choose_tiles, lambda *_: SMALL):
        torch.manual_seed(3)
        with patch.object(tiles, "choose_tiles", table):
            results.append(call(inputs, "fused", dropout=0.3))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("features", ["plain", "globals", "dilated"])
def test_packed_sequences_give_what_each_alone_gives(features: str) -> None:
    lengths, tokens = [1500, 3, 0, 700, 129], 2333  # one token belongs to none
    generator = torch.Generator("cuda").manual_seed(0)
    inputs = [torch.randn(tokens, 4, 64, device="cuda", generator=generator).bfloat16() for _ in range(4)]
    options = {
        "plain": OPTIONS,
        "globals": OPTIONS | {"global_mask": torch.arange(tokens, device="cuda") % 97 == 1},
        "dilated": OPTIONS | {"dilation": (1, 1, 2, 3)},
    }[features]
    case = (inputs[:3], lengths, options, inputs[3])
    for found, right in zip(packed(*case, "fused"), one_by_one(*case, "reference"), strict=True):
        assert (found - right).norm() <= 2e-2 * right.norm()


def test_twenty_runs_give_the_same_bits() -> None:
    inputs = draw(2, 5000, 8, 64)
    global_mask = (torch.arange(5000, device="cuda") % 500 == 0).expand(2, -1)
    first = call(inputs, "fused", global_mask=global_mask)
    for _ in range(19):
        assert all(map(torch.equal, first, call(inputs, "fused", global_mask=global_mask)))


def test_rows_beyond_two_billion_elements_are_found() -> None:
    """The last sequence of a tensor with more elements than 31 bits count gives what it gives alone."""
    query = torch.randn(17, 131_072, 16, 64, device="cuda", dtype=torch.bfloat16)
    assert query.numel() > 2**31
    results = []
    for tensor in (query, query[-1:].clone()):
        leaf = tensor.requires_grad_()
        output = banded_attention(leaf, leaf, leaf, **OPTIONS, backend="fused")
        # The gradient of the sum is 0 but for rounding; the square is not.
        (gradient,) = torch.autograd.grad(output, leaf, output.detach())
        results.append((output.detach()[-1:].clone(), gradient[-1:].clone()))
        del output, gradient
    assert all(map(torch.equal, *results))


def test_whole_layer_compiles_once_for_changing_lengths() -> None:
    layer = LongformerSelfAttention(256, 4, Band(64, 64), backend="auto").to("cuda", torch.bfloat16)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)

    def compare(positions: int, globals_: int) -> None:
        place = torch.arange(positions, device="cuda").expand(2, -1)
        tokens = AttentionMetadata.of(place < positions - 9, place < globals_)
        hidden = torch.randn(2, positions, 256, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        output = compiled(hidden, tokens)
        torch.testing.assert_close(output, layer(hidden, tokens), atol=2e-2, rtol=2e-2)
        output.sum().backward()

    compare(640, 1)
    with torch.compiler.set_stance("fail_on_recompile"):
        for positions, globals_ in ((1000, 2), (1537, 1), (333, 3)):
            compare(positions, globals_)


def test_layer_attends_without_waiting_for_the_device() -> None:
    layer = LongformerSelfAttention(256, 4, Band(64, 64), backend="auto").to("cuda", torch.bfloat16)
    place = torch.arange(700, device="cuda").expand(2, -1)
    tokens = AttentionMetadata.of(place < 690, place < 2)
    hidden = torch.randn(2, 700, 256, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    layer(hidden, tokens).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(hidden, tokens).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
