"""Claims: packed sequences are attended to as each of them alone would be, and cost no more."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longformer.attention import banded_attention
from longformer.attention.blocked.packed import groups_of
from tests.attention.packing_cases import one_by_one, packed


@st.composite
def packed_cases(draw: st.DrawFn) -> tuple[list[Tensor], list[int], dict[str, Any], Tensor]:
    """Draw sequences, some of them empty, options of attention, and what stands behind the last sequence."""
    lengths = draw(st.lists(st.integers(0, 6) | st.integers(0, 150), min_size=1, max_size=5))
    tokens, heads = sum(lengths) + draw(st.integers(0, 3)), draw(st.integers(1, 3))
    causal = draw(st.booleans())
    left, right = draw(st.integers(0, 40)), 0 if causal else draw(st.integers(0, 40))
    dilation = draw(st.integers(1, 4) | st.lists(st.integers(1, 4), min_size=heads, max_size=heads))
    options: dict[str, Any] = {"left": left, "right": right, "dilation": dilation, "causal": causal}
    extra = draw(st.sampled_from(["nothing", "global keys", "relative positions"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    inputs = [numbers(tokens, heads, 4) for _ in range(3)]
    if extra == "global keys":
        options["global_mask"] = torch.rand(tokens, generator=generator) < draw(st.sampled_from([0.05, 0.3, 1.0]))
    if extra == "relative positions":
        inputs += [numbers(tokens, heads, 4), numbers(left + right + 1, heads, 4)]
    return inputs, lengths, options, numbers(tokens, heads, 4)


@settings(max_examples=60)
@given(packed_cases(), st.sampled_from(["blocked", "reference"]))
def test_packed_sequences_give_the_values_and_gradients_of_each_alone(
    case: tuple[list[Tensor], list[int], dict[str, Any], Tensor], backend: str
) -> None:
    for found, expected in zip(packed(*case, backend), one_by_one(*case, "reference"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_thirty_short_sequences_beside_a_long_one_add_the_scores_of_their_own() -> None:
    lengths = [*range(1, 16), 4000, *range(26, 41), 1500]
    bounds = torch.tensor([0, *lengths]).cumsum(0).tolist()
    groups = groups_of(bounds, heads=12, left=256, right=256)
    assert sorted(pair for group in groups for pair in group) == list(pairwise(bounds))
    padded = sum(len(group) * max(stop - start for start, stop in group) for group in groups)
    assert padded <= 4 / 3 * sum(lengths)
    # The long ones alone, the short ones together: neither many groups nor many columns.
    assert [len(group) for group in groups][:2] == [1, 1]
    assert len(groups) <= 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seqlen": None}, "max_seqlen must be given with cu_seqlens"),
        ({"max_seqlen": 2}, "max_seqlen is 2, and 3 tokens follow"),
        ({"cu_seqlens": None}, "cu_seqlens is missing"),
        ({"cu_seqlens": torch.tensor([0, 3, 2])}, "cu_seqlens must rise from 0"),
        ({"cu_seqlens": torch.tensor([0, 3, 9])}, "cu_seqlens must rise from 0"),
        ({"cu_seqlens": torch.tensor([0.0, 3.0])}, "cu_seqlens must be .* int32"),
        ({"token_mask": torch.ones(5, dtype=torch.bool)}, "token_mask cannot be combined with cu_seqlens"),
        ({"global_mask": torch.ones(1, 5, dtype=torch.bool)}, r"global_mask must be \(tokens,\)"),
    ],
)
def test_packed_arguments_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    query = torch.zeros(*((5,) if changes.get("cu_seqlens", 0) is not None else (1, 5)), 2, 4)
    options = {"left": 1, "right": 1, "cu_seqlens": torch.tensor([0, 3, 5]), "max_seqlen": 3} | changes
    with pytest.raises(ValueError, match=message):
        banded_attention(query, query, query, **options)
