"""A wrong argument is a ValueError that names it, before anything is computed."""

from typing import Any

import pytest
import torch

from longformer.attention import banded_attention, fused

SHAPE = (2, 10, 3, 4)


def arguments(**changes: Any) -> dict[str, Any]:
    return {name: torch.zeros(SHAPE) for name in ("query", "key", "value")} | {"left": 2, "right": 2} | changes


RELATIVE = {"relative_query": torch.zeros(SHAPE), "relative_key": torch.zeros(5, 3, 4)}
MASK = torch.ones(2, 10, dtype=torch.bool)

WRONG = {
    "query": [{"query": torch.zeros(2, 10, 12)}, {name: torch.zeros(SHAPE, dtype=torch.int64) for name in ("query",)}],
    "key": [
        {"key": torch.zeros(2, 9, 3, 4)},
        {"key": torch.zeros(SHAPE, dtype=torch.float64)},
        {"key": torch.zeros(SHAPE, device="meta")},
    ],
    "value": [{"value": torch.zeros(2, 10, 3, 5)}, {"value": torch.zeros(SHAPE, dtype=torch.bfloat16)}],
    "left": [{"left": -1}, {"left": 1.5}, {"left": True}],
    "right": [{"right": -3}, {"causal": True}],
    "dilation": [{"dilation": 0}, {"dilation": [1, 2]}, {"dilation": [1, 2, -1]}, {"dilation": [1, 2, 1.5]}],
    "token_mask": [
        {"token_mask": MASK.long()},
        {"token_mask": MASK[:, :9]},
        {"token_mask": MASK.to("meta")},
        {"token_mask": [True]},
    ],
    "global_mask": [{"global_mask": MASK.float()}, {"global_mask": MASK[0]}, RELATIVE | {"global_mask": MASK}],
    "relative_query": [{"relative_key": RELATIVE["relative_key"]}, RELATIVE | {"relative_query": torch.zeros(2, 10)}],
    "relative_key": [
        {"relative_query": RELATIVE["relative_query"]},
        RELATIVE | {"relative_key": torch.zeros(4, 3, 4)},
        RELATIVE | {"relative_key": torch.zeros(5, 3, 4, dtype=torch.float64)},
    ],
    "scale": [{"scale": "large"}, {"scale": float("nan")}],
    "dropout": [{"dropout": 1.0}, {"dropout": -0.1}],
    "backend": [{"backend": "fastest"}],
}


@pytest.mark.parametrize(("name", "changes"), [(name, each) for name, wrong in WRONG.items() for each in wrong])
def test_a_wrong_argument_is_named(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=name):
        banded_attention(**arguments(**changes))


@pytest.mark.parametrize("backend", ["auto", "blocked", "reference"])
@pytest.mark.parametrize("shape", [(0, 5, 2, 4), (2, 0, 2, 4), (2, 5, 0, 4)])
def test_nothing_to_attend_to_gives_nothing(shape: tuple[int, ...], backend: str) -> None:
    query = torch.zeros(shape, requires_grad=True)
    output = banded_attention(query, query, query, left=3, right=1, backend=backend)
    assert output.shape == shape
    output.sum().backward()


def test_the_fused_backend_without_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "TRITON_INSTALLED", False)
    with pytest.raises(ValueError, match='backend "fused" needs Triton, which is not installed'):
        banded_attention(**arguments(backend="fused"))
