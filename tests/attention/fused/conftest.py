"""The kernels run on the GPU if there is one, else under Triton's interpreter (see tests/conftest.py)."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch


@pytest.fixture(autouse=True)
def _triton() -> None:
    if find_spec("triton") is None:
        pytest.skip("the fused kernels need Triton, which is not installed")


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Fill every new tensor with NaN, so that an element which no kernel writes cannot look right."""
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill
