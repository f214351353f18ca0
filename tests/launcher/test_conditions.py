"""Claims about the conditions of `longformer promote`."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.tracking.registry.conditions import Condition
from longformer.errors import LongformerError

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.sampled_from([">=", "<=", ">", "<"]), NUMBERS, NUMBERS, NUMBERS)
def test_condition_means_what_it_says(comparison: str, limit: float, value: float, other: float) -> None:
    condition = Condition.parse(f" rouge2{comparison} {limit!r}")
    assert (condition.metric, condition.limit) == ("rouge2", limit)
    expected = {">=": value >= limit, "<=": value <= limit, ">": value > limit, "<": value < limit}[comparison]
    assert condition.holds(value) is expected
    assert condition.is_no_worse(value, other) is (value >= other if ">" in comparison else value <= other)


@pytest.mark.parametrize("comparison", [">=", "<=", ">", "<"])
def test_a_value_that_is_no_number_meets_nothing(comparison: str) -> None:
    condition = Condition.parse(f"loss {comparison} 0")
    assert not condition.holds(math.nan)
    assert not condition.is_no_worse(math.nan, 0.0)


@pytest.mark.parametrize(
    "text",
    ["", "rouge2", "rouge2 >= ", "rouge2 = 0.2", "rouge2 == 0.2", "rouge2 >= nan", "2 >= 1", "a >= 1 and b", ">=1"],
)
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(LongformerError, match=r'"rouge2 >= 0\.19"'):
        Condition.parse(text)


def test_metric_without_its_split_is_that_of_the_test_split_before_validation() -> None:
    condition = Condition.parse("bits_per_character <= 2")
    metrics = {"validation/bits_per_character": 2.0, "test/bits_per_character": 3.0}
    assert condition.value_in(metrics, "m version 1") == 3.0
    assert condition.value_in({"validation/bits_per_character": 2.0}, "m version 1") == 2.0
    with pytest.raises(LongformerError, match=r"m version 1 has no metric bits_per_character \(stored: seconds\)"):
        condition.value_in({"seconds": 1.0}, "m version 1")
