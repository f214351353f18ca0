"""The layers on the fused kernels: the portable engine's results, one layout per batch, nothing that waits."""

from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from longformer.attention.band import Band
from longformer.attention.fused import tiles
from longformer.attention.layer import LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata, GlobalTokens
from longformer.attention.op import engine_name
from longformer.models.char_lm.attention import CausalSelfAttention
from longformer.models.char_lm.config import CharacterModelConfig
from tests.attention.fused.cases import DEVICE, SMALL, SMALL_RELATIVE
from tests.attention.packing_cases import packed_metadata

WIDTH, HEADS = 32, 2


@pytest.fixture(autouse=True)
def _small_tiles():
    with patch.object(tiles, "choose_tiles", lambda *arguments: SMALL_RELATIVE if "relative" in arguments else SMALL):
        yield


def make_layer(backend: str) -> LongformerSelfAttention:
    torch.manual_seed(0)
    return LongformerSelfAttention(WIDTH, HEADS, Band(3, 2, dilation=2), backend=backend).to(DEVICE)


def some_tokens(positions: int, globals_: int) -> AttentionMetadata:
    place = torch.arange(positions, device=DEVICE).expand(2, -1)
    return AttentionMetadata.of(
        place < torch.tensor([[positions], [positions - 3]], device=DEVICE), place % 7 < globals_
    )


# None; few, whose projections are absorbed; many, whose rows have kernels of their own.
@pytest.mark.parametrize(("globals_", "packed"), [(0, True), (1, False), (5, True)])
def test_fused_layer_gives_the_values_and_gradients_of_the_portable_one(globals_: int, packed: bool) -> None:
    tokens = some_tokens(17, globals_)
    hidden = torch.randn(2, 17, WIDTH, device=DEVICE)
    if packed:
        tokens = packed_metadata(tokens.token_mask, tokens.global_mask)
        hidden = tokens.pack(hidden)
    direction = torch.randn_like(hidden)
    results = []
    for backend in ("fused", "blocked"):
        layer, leaf = make_layer(backend), hidden.clone().requires_grad_()
        output = layer(leaf, tokens)
        used = [parameter for name, parameter in layer.named_parameters() if globals_ or "global" not in name]
        results.append([output, *torch.autograd.grad(output, [leaf, *used], direction)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


def test_layer_compiles_into_one_graph_that_serves_every_length() -> None:
    compiled = torch.compile(make_layer("fused"), fullgraph=True, dynamic=True, backend="eager")
    portable = make_layer("blocked")

    def compare(positions: int, globals_: int) -> None:
        tokens = some_tokens(positions, globals_)
        hidden = torch.randn(2, positions, WIDTH, device=DEVICE, requires_grad=True)
        torch.testing.assert_close(compiled(hidden, tokens), portable(hidden, tokens), atol=2e-5, rtol=2e-5)

    # torch takes sizes that are equal at first for the same size, and 0 and 1 for constants.
    compare(15, 6)
    with torch.compiler.set_stance("fail_on_recompile"):
        compare(18, 5)


@pytest.mark.parametrize("globals_", [0, 1, 15])
def test_layer_never_waits_for_the_device(globals_: int) -> None:
    """Tensors without data cannot be waited for: an `.item()` or a `nonzero()` would raise."""
    with FakeTensorMode(), DEVICE:
        layer = LongformerSelfAttention(WIDTH, HEADS, Band(5, 4), backend="fused")
        mask = torch.ones(2, 20, dtype=torch.bool)
        tokens = AttentionMetadata(mask, GlobalTokens.of(mask, globals_, 2 * globals_) if globals_ else None)
        hidden = torch.randn(2, 20, WIDTH, requires_grad=True)
        output = layer(hidden, tokens)
        assert output.shape == hidden.shape
        output.sum().backward()
        assert hidden.grad is not None
        with pytest.raises(DataDependentOutputException):
            output.sum().item()


def test_auto_leaves_to_the_portable_engine_what_the_kernels_cannot_take() -> None:
    def chosen(*shape: int, dtype: torch.dtype = torch.bfloat16, major: int = 9, relative: bool = False) -> str:
        gpu = patch.object(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(major=major))
        with FakeTensorMode(), gpu:
            return engine_name("auto", torch.empty(shape, dtype=dtype, device="cuda"), 1.0, relative=relative)

    assert chosen(1, 8, 2, 64) == "fused"
    assert chosen(1, 8, 2, 64, dtype=torch.float32) == "fused"
    assert chosen(1, 8, 2, 128, dtype=torch.float32) == "blocked"
    assert chosen(1, 8, 2, 128, dtype=torch.float32, relative=True) == "blocked"
    assert chosen(1, 8, 2, 256) == "blocked"
    assert chosen(1, 8, 2, 64, dtype=torch.float64) == "blocked"
    assert chosen(1, 8, 2, 64, major=7) == "blocked"
    assert chosen(8192, 8, 8, 64) == "blocked"
    with patch.object(torch.version, "hip", "6.4"):
        assert chosen(1, 8, 2, 64) == "blocked"
    assert engine_name("auto", torch.empty(1, 8, 2, 64), 1.0, relative=False) == "blocked"


def test_character_model_attends_with_its_relative_term_on_the_kernels() -> None:
    config = CharacterModelConfig(
        vocabulary_size=5, layers=1, hidden_size=WIDTH, heads=HEADS, feedforward_size=8, windows=(5,), dilations=(2,),
        dilated_heads=1, position="transformer_xl",
    )  # fmt: skip
    hidden = torch.randn(2, 15, WIDTH, device=DEVICE)
    biases = tuple(torch.randn(2, HEADS, WIDTH // HEADS, device=DEVICE).unbind(0))
    results = []
    for backend in ("fused", "blocked"):
        torch.manual_seed(0)
        layer, leaf = CausalSelfAttention(config, 0, backend=backend).to(DEVICE), hidden.clone().requires_grad_()
        output = layer(leaf, biases)
        results.append([output, *torch.autograd.grad(output.square().sum(), [leaf, *layer.parameters()])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
