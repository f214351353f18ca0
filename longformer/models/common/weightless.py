"""Models without weights: what they are made of can be looked at, and tensors put into them, in no time and memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _NothingDrawn(TorchFunctionMode):
    """Leaves tensors as they are where random numbers would be drawn into them.

    On the meta device, where there are none, PyTorch would load its compiler to do so, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is Tensor.normal_ or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return func(*args, **named)


@contextmanager
def without_weights() -> Iterator[None]:
    """Within it modules are made on the meta device: they have shapes and no values."""
    with torch.device("meta"), _NothingDrawn():
        yield
