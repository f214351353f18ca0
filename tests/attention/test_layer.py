"""Claims about the Longformer layer: Hugging Face's results and gradients, at any length, for a part of the memory."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention as HuggingFaceSelfAttention

from longformer.attention.band import Band
from longformer.attention.layer import LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata
from tests.attention.packing_cases import packed_metadata

WIDTH, HEADS = 24, 3


def make_layer(side: int, seed: int = 0, **options: Any) -> LongformerSelfAttention:
    torch.manual_seed(seed)
    layer = LongformerSelfAttention(WIDTH, HEADS, Band(side, side), **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return layer.eval()


def hugging_face_layer(layer: LongformerSelfAttention) -> HuggingFaceSelfAttention:
    """Build Hugging Face's layer with the same weights."""
    config = LongformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        attention_window=[2 * layer.band.left],
        attention_probs_dropout_prob=0.0,
    )
    other = HuggingFaceSelfAttention(config, 0)
    state = {name: tensor for name, tensor in layer.state_dict().items() if "global" in name}
    for kind in ("weight", "bias"):
        parts = layer.state_dict()[f"query_key_value.{kind}"].chunk(3)
        state |= {f"{name}.{kind}": part for name, part in zip(("query", "key", "value"), parts, strict=True)}
    other.load_state_dict(state)
    return other


def run_hugging_face(
    layer: HuggingFaceSelfAttention, hidden: Tensor, token_mask: Tensor, global_mask: Tensor
) -> tuple[Tensor, ...]:
    """Run Hugging Face's layer, padded to its window as its model does; cut its results back."""
    positions = hidden.shape[1]
    missing = -positions % (2 * layer.one_sided_attn_window_size)
    hidden = torch.nn.functional.pad(hidden, (0, 0, 0, missing))
    padding = torch.nn.functional.pad(~token_mask, (0, missing), value=True)
    is_global = torch.nn.functional.pad(global_mask & token_mask, (0, missing))
    signs = torch.zeros(padding.shape).masked_fill(padding, -1e9).masked_fill(is_global, 1e9)
    attended, local, *of_global = layer(hidden, signs, padding, is_global, bool(is_global.any()), True)
    local = local.transpose(1, 2)[:, :, :positions]
    return (attended[:, :positions], local, *(each.transpose(2, 3)[:, :, :positions] for each in of_global))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Draw hidden states, a token mask (left, right, no padding, holes) and a mask of 0 to many global tokens."""
    batch, positions = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    hidden = torch.randn(batch, positions, WIDTH, generator=generator)
    token_mask = torch.ones(batch, positions, dtype=torch.bool)
    for row in range(batch):
        padding = draw(st.integers(0, positions - 1))
        match draw(st.sampled_from(["none", "left", "right", "holes"])):
            case "left":
                token_mask[row, :padding] = False
            case "right":
                token_mask[row, positions - padding :] = False
            case "holes":
                token_mask[row] = torch.rand(positions, generator=generator) < 0.7
    share = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    global_mask = (torch.rand(batch, positions, generator=generator) < share) & token_mask
    return hidden, token_mask, global_mask


def has_holes(token_mask: Tensor) -> bool:
    begins = token_mask & ~torch.nn.functional.pad(token_mask, (1, 0))[:, :-1]
    return bool((begins.sum(1) > 1).any())


@settings(max_examples=40)
@given(batches(), st.integers(2, 12), st.booleans())
def test_values_and_gradients_are_those_of_hugging_face(
    batch: tuple[Tensor, Tensor, Tensor], side: int, packed: bool
) -> None:
    hidden, token_mask, global_mask = batch
    layer = make_layer(side)
    other = hugging_face_layer(layer)
    tokens = AttentionMetadata.of(token_mask, global_mask)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    # In a packed row a hole would be closed, and move what stands around it together.
    if packed and token_mask.any() and not has_holes(token_mask):
        tokens = packed_metadata(token_mask, global_mask)
        attended = tokens.unpack(layer(tokens.pack(ours), tokens))
    else:
        attended = layer(ours, tokens)
    expected = run_hugging_face(other, theirs, token_mask, global_mask)[0]
    torch.testing.assert_close(attended, expected, rtol=1e-5, atol=1e-5)

    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    (attended * direction).sum().backward()
    (expected * direction).sum().backward()
    separate = torch.cat([other.query.weight.grad, other.key.weight.grad, other.value.weight.grad])
    pairs = [(ours.grad, theirs.grad), (layer.query_key_value.weight.grad, separate)]
    for name in ("query_global", "key_global", "value_global"):
        for kind in ("weight", "bias"):
            pairs.append((getattr(getattr(layer, name), kind).grad, getattr(getattr(other, name), kind).grad))
    # That of the global key's bias is 0 but for rounding, so all are measured by the largest.
    largest = max(expected.abs().max() for _, expected in pairs if expected is not None).clamp(min=1)
    for found, expected in pairs:
        assert (found is None) == (expected is None)
        if found is not None:
            assert (found - expected).abs().max() <= 1e-5 * largest


@settings(max_examples=25)
@given(batches(), st.integers(2, 12))
def test_probabilities_have_the_format_of_hugging_face(batch: tuple[Tensor, Tensor, Tensor], side: int) -> None:
    hidden, token_mask, global_mask = batch
    layer = make_layer(side)
    tokens = AttentionMetadata.of(token_mask, global_mask)
    local, of_global = layer.probabilities(hidden, tokens)
    _, expected, *expected_of_global = run_hugging_face(hugging_face_layer(layer), hidden, token_mask, global_mask)
    torch.testing.assert_close(local, expected, rtol=1e-5, atol=1e-5)
    assert (of_global is None) == (not expected_of_global)
    if of_global is not None and tokens.global_tokens is not None:
        # Where Hugging Face fills free slots with 1 / positions, ours hold 0.
        used = tokens.global_tokens.is_real[:, None, None, :]
        torch.testing.assert_close(of_global, expected_of_global[0] * used, rtol=1e-5, atol=1e-5)
        assert bool((of_global.masked_fill(used, 0) == 0).all())


def test_few_global_tokens_are_never_projected_over_the_whole_text_and_many_are() -> None:
    layer = make_layer(4)
    projected: list[int] = []
    layer.key_global.register_forward_hook(lambda *_: projected.append(1))
    hidden = torch.randn(1, 64, WIDTH)
    for count, times in ((0, 0), (1, 0), (6, 0), (7, 1)):
        projected.clear()
        layer(hidden, AttentionMetadata.of(None, torch.arange(64)[None] < count))
        assert len(projected) == times, count


def test_dropout_changes_no_expectation_and_draws_for_global_rows_too() -> None:
    layer = make_layer(4, dropout=0.3)
    hidden = torch.randn(1, 16, WIDTH).expand(800, -1, -1)
    for count in (2, 14):
        tokens = AttentionMetadata.of(None, (torch.arange(16) < count).expand(800, -1))
        with torch.no_grad():
            expected = layer.eval()(hidden, tokens)[0]
            draws = layer.train()(hidden, tokens)
        assert not torch.equal(draws[0, 0], draws[1, 0])
        error = (draws.mean(0) - expected) / (draws.std(0) / 800**0.5)
        assert float(error.abs().max()) < 5.5


def test_a_compiled_layer_serves_changing_lengths_without_compiling_again() -> None:
    layer = make_layer(4)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")

    def compare(positions: int, count: int) -> None:
        hidden = torch.randn(2, positions, WIDTH, requires_grad=True)
        tokens = AttentionMetadata.of(
            torch.arange(positions).expand(2, -1) < positions - 3, torch.arange(positions)[None] < count
        )
        attended = compiled(hidden, tokens)
        torch.testing.assert_close(attended, layer(hidden, tokens))
        attended.sum().backward()

    # torch takes sizes that are equal at first for the same size, and 0 and 1 for constants.
    compare(30, 3)
    with torch.compiler.set_stance("fail_on_recompile"):
        for positions, count in ((31, 3), (57, 2), (128, 4)):
            compare(positions, count)


def test_checkpointing_gives_the_same_gradients_with_dropout() -> None:
    layer = make_layer(4, dropout=0.2).train()
    tokens = AttentionMetadata.of(None, torch.arange(20)[None] < 2)
    hidden = torch.randn(1, 20, WIDTH)
    gradients = []
    for run in (layer, lambda *arguments: checkpoint(layer, *arguments, use_reentrant=False)):
        torch.manual_seed(5)
        leaf = hidden.clone().requires_grad_()
        run(leaf, tokens).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("share_of_globals", [None, 3, "half"])
def test_what_is_kept_for_backward_grows_linearly_with_the_length(share_of_globals: int | str | None) -> None:
    layer = make_layer(4)

    def kept_bytes(positions: int) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        count = positions // 2 if share_of_globals == "half" else share_of_globals or 0
        tokens = AttentionMetadata.of(None, torch.arange(positions)[None] < count)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(torch.randn(1, positions, WIDTH), tokens)
        return sum(kept.values())

    weights = sum(parameter.numel() * 4 for parameter in layer.parameters())
    short, long = kept_bytes(512) - weights, kept_bytes(2048) - weights
    assert long < 4.5 * short


@pytest.mark.parametrize("count", [2, 14])
def test_half_precision_stays_close_to_single(count: int) -> None:
    layer = make_layer(4)
    hidden = torch.randn(2, 30, WIDTH)
    tokens = AttentionMetadata.of(torch.arange(30).expand(2, -1) < 27, torch.arange(30)[None].expand(2, -1) < count)
    expected = layer(hidden, tokens)
    half = layer.bfloat16()(hidden.bfloat16(), tokens)
    assert half.dtype == torch.bfloat16
    assert ((half.float() - expected).norm() / expected.norm()).item() < 0.03


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide width"):
        LongformerSelfAttention(24, 5, Band(2, 2))
