"""The portable engine computes what the dense float64 reference defines, forward and backward."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import pytest
import torch
from attention_cases import Case, attention_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from longformer.attention import banded_attention
from longformer.attention.blocked import partition
from longformer.cpu.threads import map_in_threads

TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 6e-3}


@settings(max_examples=200)
@given(attention_cases())
def test_blocked_equals_the_reference_with_all_gradients(case: Case) -> None:
    expected, found = case.run("reference"), case.run("blocked")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=60)
@given(attention_cases(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_lower_precisions_stay_close_to_the_float64_reference(case: Case, dtype: torch.dtype) -> None:
    rounded = {name: tensor.to(dtype).double() for name, tensor in case.inputs.items()}
    exact = Case(rounded, case.options, case.gradient.to(dtype).double(), case.description)
    expected, found = exact.run("reference"), exact.run("blocked", dtype)
    for name, tensor in expected.items():
        assert found[name].dtype == dtype
        largest = max(1.0, tensor.abs().max().item())
        assert (found[name].double() - tensor).abs().max().item() <= TOLERANCES[dtype] * largest, name


@settings(max_examples=40)
@given(attention_cases())
def test_the_size_of_a_part_changes_nothing(case: Case) -> None:
    expected = case.run("blocked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "CPU_TILE_SCORES", 1)
        found = case.run("blocked")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-11, atol=1e-11)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@settings(max_examples=40)
@given(attention_cases(), st.sampled_from([2, 3, 16]))
def test_the_number_of_threads_changes_nothing_but_rounding(case: Case, count: int) -> None:
    with threads(1):
        expected = case.run("blocked")
    with threads(count):
        found, again = case.run("blocked"), case.run("blocked")
        assert torch.get_num_threads() == count
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-11, atol=1e-11)
        assert torch.equal(found[name], again[name])


def test_dropout_is_the_same_in_every_run_with_several_threads() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 150, 4, 8, requires_grad=True) for _ in range(3))

    def run() -> list[torch.Tensor]:
        torch.manual_seed(1)
        output = banded_attention(query, key, value, left=20, right=9, dropout=0.5, backend="blocked")
        return [output, *torch.autograd.grad(output.square().sum(), (query, key, value))]

    with threads(4):
        first = run()
        for _ in range(5):
            assert all(torch.equal(*pair) for pair in zip(first, run(), strict=True))


def test_work_in_threads_keeps_its_order_and_says_what_failed() -> None:
    def work(item: int) -> tuple[int, int]:
        assert not torch.is_grad_enabled()
        if item == 99:
            raise ValueError("99")
        return item, torch.get_num_threads()

    with threads(4):
        assert map_in_threads(work, range(9)) == [(item, 1) for item in range(9)]
        assert map_in_threads(work, range(2)) == [(0, 2), (1, 2)]
        with pytest.raises(ValueError, match="99"):
            map_in_threads(work, [1, 99, 2])
        # What is started later has the caller's number again.
        assert ThreadPoolExecutor(1).submit(torch.get_num_threads).result() == 4


def test_work_in_threads_goes_on_after_a_fork() -> None:
    with threads(2):
        assert map_in_threads(str, [1, 2]) == ["1", "2"]
        process = get_context("fork").Process(target=map_in_threads, args=(str, [1, 2]))
        process.start()
        process.join(60)
        process.kill()
    assert process.exitcode == 0


@pytest.mark.parametrize(("left", "right"), [(256, 256), (511, 0), (512, 0), (0, 600)])
def test_larger_blocks_of_a_wide_band_equal_the_reference(left: int, right: int) -> None:
    torch.manual_seed(0)
    positions = torch.arange(700)
    options = {
        "left": left,
        "right": right,
        "token_mask": positions.ne(130).expand(2, 700),
        "global_mask": positions.remainder(301).eq(127).expand(2, 700),
    }
    inputs = {name: torch.randn(2, 700, 2, 4, dtype=torch.float64) for name in ("query", "key", "value")}
    case = Case(inputs, options, torch.randn(2, 700, 2, 4, dtype=torch.float64))
    expected, found = case.run("reference"), case.run("blocked")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-10)


@settings(max_examples=60)
@given(attention_cases(longest=80))
def test_padding_is_exactly_zero_and_has_exactly_zero_gradients(case: Case) -> None:
    mask = case.options["token_mask"]
    if mask is None:
        mask = torch.ones(case.gradient.shape[:2], dtype=torch.bool)
    for backend in ("reference", "blocked"):
        found = case.run(backend, torch.float32)
        for name in ("output", "query", "key", "value"):
            assert torch.isfinite(found[name]).all()
            assert (found[name][~mask] == 0).all()


@settings(max_examples=40)
@given(attention_cases(longest=80))
def test_padded_inputs_cannot_be_seen(case: Case) -> None:
    mask = case.options["token_mask"]
    changed = {name: tensor.clone() for name, tensor in case.inputs.items()}
    if mask is not None:
        for name in ("query", "key", "value"):
            changed[name][~mask] = 1e4
    other = Case(changed, case.options, case.gradient).run("blocked")
    torch.testing.assert_close(other["output"], case.run("blocked")["output"], rtol=1e-12, atol=1e-12)


OPTIONS = {
    "plain": {"left": 3, "right": 2},
    "causal and dilated": {"left": 5, "right": 0, "causal": True, "dilation": [1, 3]},
    "padding and global keys": {
        "left": 2,
        "right": 1,
        "token_mask": torch.arange(70).remainder(9).ne(4).expand(2, 70),
        "global_mask": torch.arange(70).remainder(31).eq(5).expand(2, 70),
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_match_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(2, 70, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(
        lambda *qkv: banded_attention(*qkv, **OPTIONS[name], backend="blocked"), tensors, fast_mode=True
    )


def test_relative_gradients_match_finite_differences() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(2, 66, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    tensors.append(torch.randn(6, 2, 2, dtype=torch.float64, requires_grad=True))

    def attend(query, key, value, relative_query, relative_key):  # type: ignore[no-untyped-def]
        return banded_attention(
            query, key, value, left=4, right=1, relative_query=relative_query, relative_key=relative_key,
            dilation=2, backend="blocked",
        )  # fmt: skip

    assert torch.autograd.gradcheck(attend, tensors, fast_mode=True)


def test_a_small_dense_gradient_matches_finite_differences_element_by_element() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(1, 7, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(
        lambda *qkv: banded_attention(*qkv, left=2, right=1, dilation=[2, 1], backend="blocked"), tensors
    )


def test_dropout_keeps_the_mean_and_repeats_with_the_seed() -> None:
    torch.manual_seed(3)
    ones = torch.ones(4, 400, 2, 8)
    outputs = []
    for _ in range(2):
        torch.manual_seed(7)
        outputs.append(banded_attention(ones, ones, ones, left=30, right=30, dropout=0.3, backend="blocked"))
    assert torch.equal(*outputs)
    assert outputs[0].std() > 0.01
    assert abs(outputs[0].mean().item() - 1) < 0.01


def test_backward_drops_the_same_probabilities_as_forward() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 150, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def attend(value: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return banded_attention(query, key, value, left=20, right=9, dropout=0.5, backend="blocked")

    # The output is linear in the values: with one and the same mask <gradient, output(d)> == <value gradient, d>.
    gradient, direction = torch.randn_like(value), torch.randn_like(value)
    (value_gradient,) = torch.autograd.grad(attend(value), value, gradient)
    torch.testing.assert_close((attend(direction) * gradient).sum(), (value_gradient * direction).sum())
    torch.manual_seed(1)
    assert torch.autograd.gradcheck(
        lambda query, key: attend_with_seed(query, key, value), (query[:, :20], key[:, :20]), fast_mode=True
    )


def attend_with_seed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    return banded_attention(query, key, value[:, :20], left=5, right=5, dropout=0.5, backend="blocked")


def test_views_of_a_packed_projection_are_kept_without_a_copy() -> None:
    packed = torch.randn(2, 500, 3, 4, 16, requires_grad=True)
    kept: set[int] = set()

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        banded_attention(*packed.unbind(2), left=20, right=20, backend="blocked")
    assert kept == {packed.untyped_storage().data_ptr()}


def test_autocast_does_not_lower_the_precision() -> None:
    query, key, value = torch.randn(3, 1, 100, 2, 16).unbind(0)
    expected = banded_attention(query, key, value, left=10, right=10, backend="blocked")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(banded_attention(query, key, value, left=10, right=10, backend="blocked"), expected)


def test_repeated_runs_are_bitwise_equal() -> None:
    torch.manual_seed(0)
    case = Case({name: torch.randn(2, 333, 3, 16) for name in ("query", "key", "value")},
                {"left": 40, "right": 7, "dilation": [1, 1, 2]}, torch.randn(2, 333, 3, 16))  # fmt: skip
    first, second = case.run("blocked", torch.float32), case.run("blocked", torch.float32)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_gives_what_its_examples_give_alone() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 3, 200, 2, 8, dtype=torch.float64).unbind(0)
    global_mask = torch.zeros(3, 200, dtype=torch.bool)
    global_mask[0, 5] = global_mask[2, :40] = True
    together = banded_attention(query, key, value, left=9, right=3, global_mask=global_mask, backend="blocked")
    for example in range(3):
        one = slice(example, example + 1)
        alone = banded_attention(query[one], key[one], value[one], left=9, right=3, global_mask=global_mask[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-12, atol=1e-12)
