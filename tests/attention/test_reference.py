"""The reference defines the semantics; here it is held against plain sums over the keys that a rule names."""

import math

import torch
from attention_cases import Case, attention_cases
from hypothesis import given, settings

from longformer.attention import Band, banded_attention


def attend_one_by_one(case: Case) -> torch.Tensor:
    """Spell out semantics.md 1.1 and 1.2 with loops over examples, heads, queries and keys."""
    query, key, value = (case.inputs[name] for name in ("query", "key", "value"))
    batch, positions, heads, head_dim = query.shape
    options = case.options
    output = torch.zeros_like(query)
    for example in range(batch):
        for head in range(heads):
            dilation = options["dilation"]
            dilation = dilation[head] if isinstance(dilation, list) else dilation
            band = Band(options["left"], options["right"], dilation)
            for i in range(positions):
                keys = [j for j in range(positions) if is_visible(case, band, example, i, j)]
                scores = [query[example, i, head] @ key[example, j, head] for j in keys]
                if "relative_query" in case.inputs:
                    columns = [(j - i) // dilation + band.left for j in keys]
                    row = case.inputs["relative_query"][example, i, head]
                    position = [row @ case.inputs["relative_key"][column, head] for column in columns]
                    scores = [score + term for score, term in zip(scores, position, strict=True)]
                if keys:
                    weights = torch.softmax(torch.stack(scores) / math.sqrt(head_dim), 0)
                    output[example, i, head] = weights @ value[example, keys, head]
    return output


def is_visible(case: Case, band: Band, example: int, i: int, j: int) -> bool:
    token_mask, global_mask = case.options["token_mask"], case.options.get("global_mask")
    if token_mask is not None and not (token_mask[example, i] and token_mask[example, j]):
        return False
    if case.options["causal"] and j > i:
        return False
    return band.sees(i, j) or (global_mask is not None and bool(global_mask[example, j]))


@settings(max_examples=60)
@given(attention_cases(longest=12))
def test_the_reference_spelled_out(case: Case) -> None:
    found = case.run("reference")["output"]
    torch.testing.assert_close(found, attend_one_by_one(case), rtol=1e-12, atol=1e-12)


def test_a_full_band_is_ordinary_attention() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 40, 2, 8, dtype=torch.float64).unbind(0)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True
    ).transpose(1, 2)
    for backend in ("reference", "blocked"):
        found = banded_attention(query, key, value, left=1000, right=0, causal=True, backend=backend)
        torch.testing.assert_close(found, expected)
