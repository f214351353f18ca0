"""Memory that is kept serves again once nothing uses it, never before, and never grows past what was in use."""

import gc
from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from longformer.cpu import buffer_pool
from longformer.cpu.buffer_pool import MIN_BYTES, BufferPool, empty_like, new_empty, slab_bytes

ROWS, WIDTH = MIN_BYTES // 1024, 256
"""Of float32, the least that is kept."""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> BufferPool:
    """Memory that nobody used yet, in place of the process's."""
    memory = BufferPool()
    monkeypatch.setattr(buffer_pool, "POOL", memory)
    return memory


def kept_bytes(memory: BufferPool) -> int:
    return sum(size * len(slabs) for size, slabs in memory.free.items())


def test_freed_memory_is_given_out_again(memory: BufferPool) -> None:
    first = memory.empty((ROWS, WIDTH), torch.float32)
    assert first.is_contiguous()
    assert not first.any()
    address = first.data_ptr()
    assert kept_bytes(memory) == 0
    del first
    assert kept_bytes(memory) == MIN_BYTES
    # Another shape and dtype of about the size.
    second = memory.empty((2 * ROWS - 10, WIDTH), torch.bfloat16)
    assert second.data_ptr() == address
    assert kept_bytes(memory) == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda tensor: tensor[5:7].T,
        lambda tensor: tensor.detach(),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.untyped_storage(),
        lambda tensor: nn.Parameter(tensor),
    ],
    ids=["view", "detached", "numpy", "storage", "parameter"],
)
def test_memory_is_in_use_as_long_as_any_part_of_it_is(memory: BufferPool, use: Callable[[Tensor], object]) -> None:
    other = use(memory.empty((ROWS, WIDTH), torch.float32))
    gc.collect()
    assert kept_bytes(memory) == 0
    del other
    gc.collect()
    assert kept_bytes(memory) == MIN_BYTES


def test_what_autograd_keeps_is_in_use(memory: BufferPool) -> None:
    weight = torch.ones((), requires_grad=True)
    given = memory.empty((ROWS, WIDTH), torch.float32).fill_(3)
    loss = (given * weight).mean()
    del given
    assert kept_bytes(memory) == 0
    other = memory.empty((ROWS, WIDTH), torch.float32).fill_(7)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(3)
    del loss, other
    assert kept_bytes(memory) == 2 * MIN_BYTES


def test_autograd_adds_one_kept_gradient_to_another_in_place(memory: BufferPool) -> None:
    addresses = []

    class GradientInKeptMemory(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, given: Tensor) -> Tensor:
            return given.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            kept = memory.empty(gradients[0].shape, gradients[0].dtype).copy_(gradients[0])
            addresses.append(kept.data_ptr())
            return kept

    read_twice = torch.zeros(ROWS, WIDTH, requires_grad=True) + 1
    sums = []
    read_twice.register_hook(sums.append)
    (2 * GradientInKeptMemory.apply(read_twice) + 3 * GradientInKeptMemory.apply(read_twice)).sum().backward()
    assert len(set(addresses)) == 2
    assert sums[0].data_ptr() in addresses
    assert bool((sums[0] == 5).all())


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40_000), st.integers(0, 5)), max_size=40))
def test_tensors_never_share_memory_and_what_is_held_was_in_use_at_a_time(steps: list[tuple[int, int]]) -> None:
    memory = BufferPool()
    held: dict[int, tuple[Tensor, int]] = {}
    in_use = most_in_use = 0
    for number, (size, place) in enumerate(steps):
        before = held.pop(place, None)
        if before is not None:
            in_use -= slab_bytes(before[0].numel() * 4)
        del before
        tensor = memory.empty((size,), torch.float32)
        held[place] = tensor.fill_(number), number
        in_use += slab_bytes(size * 4)
        most_in_use = max(most_in_use, in_use)
        del tensor
        assert in_use + kept_bytes(memory) <= most_in_use
        assert all(bool((each == filled).all()) for each, filled in held.values())


@given(st.integers(1, 2**50))
def test_a_slab_is_at_most_an_eighth_larger_than_asked_for(size: int) -> None:
    assert size <= slab_bytes(size) <= size + size / 8
    assert slab_bytes(slab_bytes(size)) == slab_bytes(size)


def test_a_size_that_is_not_there_takes_the_place_of_what_lies_free(memory: BufferPool) -> None:
    some = [memory.empty((ROWS, WIDTH), torch.float32) for _ in range(5)]
    some.clear()
    assert kept_bytes(memory) == 5 * MIN_BYTES
    large = memory.empty((3 * ROWS, WIDTH), torch.float32)
    assert kept_bytes(memory) == 2 * MIN_BYTES
    assert large.shape == (3 * ROWS, WIDTH)


def test_small_tensors_and_those_of_other_devices_are_the_allocators(memory: BufferPool) -> None:
    small = empty_like(torch.empty(ROWS - 1, WIDTH))
    elsewhere: Tensor = new_empty(torch.empty(2, device="meta"), (10 * ROWS, WIDTH))
    assert elsewhere.device.type == "meta"
    assert small.shape == (ROWS - 1, WIDTH)
    assert new_empty(small, (0, 5)).shape == (0, 5)
    del small
    assert not memory.free


def test_without_memory_pytorch_says_so(memory: BufferPool) -> None:
    shape = (2**50, 2)
    with pytest.raises(RuntimeError, match="can't allocate memory") as failure:
        memory.empty(shape, torch.float32)
    assert str(4 * prod(shape)) in str(failure.value)
