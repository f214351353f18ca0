"""A product gives PyTorch's values, whichever library multiplies."""

import pytest
import torch
from torch.nn import functional

from longformer.cpu.linear import linear


@pytest.mark.parametrize("shape", [(1, 6), (5, 6), (2, 3, 6), (0, 6)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_product_is_pytorchs(shape: tuple[int, ...], bias: bool, enabled: bool) -> None:
    torch.manual_seed(0)
    x, weight, added = torch.randn(shape), torch.randn(4, 6), torch.randn(4) if bias else None
    with torch.backends.mkldnn.flags(enabled=enabled):
        torch.testing.assert_close(linear(x, weight, added), functional.linear(x, weight, added))


def test_strided_operands_and_other_precisions_are_multiplied_too() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(6, 5).T, torch.randn(6, 4).T
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
    assert linear(x.double(), weight.double()).dtype == torch.float64
    assert linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
