"""A device that is not there, to count what waits for it.

A tensor on a CPU belongs to the device where it was made on `DEVICE`, copied to it, or computed from tensors of the
device. Everything real runs; counted is what the host cannot get past before the device has done all its work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longformer.attention.layer import BandAndGlobalAttention
from longformer.models.coreference import spans

DEVICE = torch.device("cpu", 0)
"""Not plain "cpu": PyTorch really copies what is moved there, and it shows in the arguments of operators."""

aten = torch.ops.aten
_READ_BY_HOST = {
    aten._local_scalar_dense.default,  # item, float, int, bool
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
}
_TO_HOST = {Tensor.tolist, Tensor.cpu, Tensor.numpy}
_MADE_OF_NUMBERS = {torch.tensor, torch.as_tensor, Tensor.new_tensor}


@contextmanager
def pretend_device() -> Iterator[list[str]]:
    """While the block runs, collect in the list that is yielded what waits for the device."""
    waits: list[str] = []
    operators = _Operators(waits)
    with operators, _Calls(operators):
        yield waits


def as_on_a_device(model: nn.Module) -> nn.Module:
    """Return the model on the device, computing what it does there: nothing that is for CPUs only."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(lambda *_: None)  # `longformer.cpu` leaves hooked modules alone
        if isinstance(module, BandAndGlobalAttention):
            module.backend = "reference"
    spans.looks_at_values = lambda _: False
    return model.to(DEVICE)


class _Operators(TorchDispatchMode):
    """Follows the device's tensors through every operator, backward included."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits
        self._storages: dict[int, StorageWeakRef] = {}

    def owns(self, tensor: Any) -> bool:
        if not isinstance(tensor, Tensor):
            return False
        found = self._storages.get(tensor.untyped_storage()._cdata)
        return found is not None and not found.expired()

    def take(self, values: Any) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor):
                reference = StorageWeakRef(tensor.untyped_storage())
                self._storages[reference.cdata] = reference

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = any(map(self.owns, tree_leaves((args, kwargs))))
        moves_in = is_device(kwargs.get("device"))
        if own and (operator in _READ_BY_HOST or (operator is aten.index.Tensor and has_mask(args[1]))):
            self.waits.append(str(operator))
        if operator is aten._to_copy.default and moves_in and not own and not kwargs.get("non_blocking"):
            self.waits.append("copy to the device")
        if operator is aten.copy_.default and self.owns(args[0]) != self.owns(args[1]) and True not in args[2:]:
            self.waits.append("copy between host and device")
        result = operator(*args, **kwargs)
        if own or moves_in:
            self.take(result)
        return result


class _Calls(TorchFunctionMode):
    """Sees the calls that are no operators for a tensor on a CPU."""

    def __init__(self, operators: _Operators) -> None:
        super().__init__()
        self.operators = operators

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = bool(args) and self.operators.owns(args[0])
        result = function(*args, **kwargs)
        if function in _TO_HOST and own:
            self.operators.waits.append(function.__name__)
        if function in _MADE_OF_NUMBERS and (own or is_device(kwargs.get("device"))):
            self.operators.waits.append(f"{function.__name__} on the device")
            self.operators.take(result)
        return result


def is_device(device: Any) -> bool:
    """Return whether an argument names the device."""
    return device is not None and torch.device(device) == DEVICE


def has_mask(indices: Any) -> bool:
    """Return whether one of an index's tensors is bool: how many it selects must be known."""
    return any(isinstance(each, Tensor) and each.dtype == torch.bool for each in indices)
