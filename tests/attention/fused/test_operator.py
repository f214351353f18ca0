"""What PyTorch sees: the operators' contracts, gradients of packed projections, checkpointing and clear refusals."""

from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import library
from torch.utils.checkpoint import checkpoint

from longformer.attention import banded_attention
from longformer.attention.fused import BatchLayout, fused_attention_of_projections, tiles
from longformer.attention.metadata import AttentionMetadata
from tests.attention.fused.cases import DEVICE, SMALL, SMALL_RELATIVE, Case, masks


@pytest.fixture(autouse=True)
def _small_tiles():
    with patch.object(tiles, "choose_tiles", lambda *arguments: SMALL_RELATIVE if "relative" in arguments else SMALL):
        yield


def some_masks() -> dict[str, torch.Tensor | None]:
    return masks(Case(30, 0, 0, padding="right", globals_="some"), torch.Generator().manual_seed(0))


def some_layout() -> BatchLayout:
    return AttentionMetadata.of(**some_masks()).layout


@pytest.mark.parametrize("kind", ["plain", "packed", "relative", "masked and dropped"])
def test_operator_keeps_the_contract_of_pytorch(kind: str) -> None:
    from longformer.attention.fused.op import fused_attention_op

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=DEVICE, requires_grad=True)

    projections, relative, layout, seed, dropout = [leaf(2, 30, 2, 16) for _ in range(3)], [], (), None, 0.0
    if kind == "packed":
        projections = [leaf(2, 30, 3, 2, 16)]
    if kind == "relative":
        relative = [leaf(2, 30, 2, 16), leaf(11, 2, 16)]
    if kind == "masked and dropped":
        layout, seed, dropout = some_layout().tensors(), torch.tensor([7], device=DEVICE), 0.1
    arguments = (projections, relative, layout, 0, seed, 5, 5, (1, 2), False, 0.25, dropout)
    library.opcheck(fused_attention_op, arguments)


def test_packed_projection_gives_the_same_output_and_a_packed_gradient() -> None:
    packed = torch.randn(2, 30, 3, 2, 16, device=DEVICE, requires_grad=True)
    options = {"left": 5, "right": 5, "scale": 0.25, "dropout": 0.0}
    ours = fused_attention_of_projections((packed,), **options, dilations=(1, 2), layout=some_layout())
    apart = banded_attention(*packed.unbind(2), **options, dilation=(1, 2), **some_masks(), backend="fused")
    arriving = torch.randn_like(ours)
    assert torch.equal(ours, apart)
    (packed_gradient,) = torch.autograd.grad(ours, packed, arriving)
    assert packed_gradient.is_contiguous()
    assert torch.equal(packed_gradient, *torch.autograd.grad(apart, packed, arriving))


def test_transposed_and_expanded_tensors_are_read_in_place() -> None:
    query, key, value = torch.randn(3, 2, 2, 30, 16, device=DEVICE).transpose(2, 3).unbind(0)
    ours = banded_attention(query, key, value, left=4, right=4, backend="fused")
    exact = banded_attention(query, key, value, left=4, right=4, backend="reference")
    torch.testing.assert_close(ours, exact, atol=1e-5, rtol=1e-5)


def test_activation_checkpointing_replays_the_dropout() -> None:
    inputs = [torch.randn(1, 30, 2, 16, device=DEVICE, requires_grad=True) for _ in range(3)]
    attend = partial(banded_attention, left=5, right=5, dropout=0.3, backend="fused")
    gradients = []
    for run in (attend, lambda *tensors: checkpoint(attend, *tensors, use_reentrant=False)):
        torch.manual_seed(3)
        gradients.append(torch.autograd.grad(run(*inputs).square().sum(), inputs))
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("shape", [(0, 5, 2, 16), (2, 0, 2, 16), (2, 5, 0, 16)])
def test_nothing_to_attend_to_gives_nothing(shape: tuple[int, ...]) -> None:
    query = torch.zeros(shape, device=DEVICE, requires_grad=True)
    mask = torch.ones(shape[:2], dtype=torch.bool, device=DEVICE)
    output = banded_attention(query, query, query, left=3, right=1, token_mask=mask, global_mask=mask, backend="fused")
    assert output.shape == shape
    output.sum().backward()


def test_same_input_gives_the_same_bits() -> None:
    inputs = [torch.randn(2, 30, 2, 16, device=DEVICE, requires_grad=True) for _ in range(3)]
    case = masks(Case(30, 0, 0, globals_="some"), torch.Generator().manual_seed(0))

    def run() -> tuple[torch.Tensor, ...]:
        output = banded_attention(*inputs, left=5, right=5, **case, backend="fused")
        return output, *torch.autograd.grad(output.sum(), inputs)

    assert all(map(torch.equal, run(), run()))


def test_a_sequence_gets_the_same_bits_in_every_batch() -> None:
    inputs = [torch.randn(2, 40, 2, 16, device=DEVICE) for _ in range(3)]
    is_global = torch.arange(40, device=DEVICE).expand(2, -1) < 2

    def run(sequences: int) -> list[torch.Tensor]:
        leaves = [tensor[:sequences].clone().requires_grad_() for tensor in inputs]
        marked = is_global[:sequences]
        output = banded_attention(*leaves, left=5, right=5, global_mask=marked, backend="fused")
        return [output[0], *(gradient[0] for gradient in torch.autograd.grad(output.square().sum(), leaves))]

    with patch.object(tiles, "CHUNK", 16):
        assert all(map(torch.equal, run(1), run(2)))


@pytest.mark.parametrize(
    ("shape", "dtype", "scale", "message"),
    [
        ((1, 4, 1, 16), torch.float64, None, "query must be float32, bfloat16 or float16"),
        ((1, 4, 1, 136), torch.float32, None, "query has head_dim 136"),
        ((1, 4, 1, 16), torch.float32, -1.0, "scale must be positive"),
        ((65_536, 1, 1, 16), torch.float32, None, r"query has batch \* heads 65536"),
    ],
)
def test_what_the_kernels_cannot_take_is_refused_by_name(
    shape: tuple[int, ...], dtype: torch.dtype, scale: float | None, message: str
) -> None:
    tensor = torch.zeros(shape, dtype=dtype, device=DEVICE)
    with pytest.raises(ValueError, match=message):
        banded_attention(tensor, tensor, tensor, left=1, right=1, scale=scale, backend="fused")


def test_a_tensor_off_the_gpu_is_refused_by_name() -> None:
    from longformer.attention.fused import engine

    tensor = torch.zeros(1, 4, 1, 16)
    with (
        patch.object(engine, "INTERPRETED", False),
        pytest.raises(ValueError, match='query is on cpu: backend "fused"'),
    ):
        banded_attention(tensor, tensor, tensor, left=1, right=1, backend="fused")


def test_attention_compiles_into_one_graph_for_changing_lengths() -> None:
    def layer(packed: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        return banded_attention(*packed.unbind(2), left=5, right=5, token_mask=token_mask, backend="fused") * 2

    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (20, 31):
            packed = torch.randn(2, length, 3, 2, 16, device=DEVICE, requires_grad=True)
            token_mask = torch.arange(length, device=DEVICE).expand(2, -1) < length - 3
            ours, eager = compiled(packed, token_mask), layer(packed, token_mask)
            assert torch.equal(ours, eager)
            gradients = [torch.autograd.grad(output.sum(), packed)[0] for output in (ours, eager)]
            assert torch.equal(*gradients)
