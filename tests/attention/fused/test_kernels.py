"""The kernels against the dense reference in float64, outputs and gradients, all features at once."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from tests.attention.fused.cases import LONG, Case, cases, check_against_reference

EDGES = [
    Case(positions=1, left=0, right=0),
    Case(positions=1, left=3, right=5, padding="all", globals_="all"),
    Case(positions=37, left=0, right=0),
    Case(positions=37, left=50, right=60),
    Case(positions=70, left=20, right=3),
    Case(positions=65, left=40, right=0, causal=True, dilation=(1, 3)),
    Case(positions=47, left=9, right=9, dilation=(2, 5), padding="right", globals_="first", dtype=torch.float16),
    Case(positions=50, left=6, right=6, globals_="some", causal=False, padding="left", head_dim=24, chunk=32),
    Case(positions=50, left=12, right=0, globals_="some", causal=True, padding="holes"),
    Case(positions=40, left=5, right=5, globals_="padded", padding="right", head_dim=40),
    Case(positions=40, left=30, right=30, globals_="all", dilation=(4, 1)),
    Case(positions=60, left=25, right=25, relative=True),
    Case(positions=45, left=7, right=0, relative=True, causal=True, dilation=(1, 2), padding="holes", programs=1),
    Case(positions=50, left=9, right=4, relative=True, dilation=(2, 1), padding="left", programs=10, head_dim=24),
    Case(positions=65, left=3, right=8, globals_="some", padding="right", chunk=256),
    Case(positions=20, left=30, right=1, relative=True, dilation=(9, 3), dtype=torch.float16),
]


@pytest.mark.parametrize("case", EDGES, ids=str)
def test_fused_output_and_gradients_equal_the_reference_at_the_edges(case: Case) -> None:
    check_against_reference(case)


@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(case=cases(largest=24))
def test_fused_output_and_gradients_equal_the_reference_in_short_random_cases(case: Case) -> None:
    check_against_reference(case)


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(case=cases(largest=LONG))
def test_fused_output_and_gradients_equal_the_reference_in_random_cases(case: Case) -> None:
    check_against_reference(case)


@pytest.mark.slow
@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(case=cases(largest=700))
def test_fused_output_and_gradients_equal_the_reference_in_long_random_cases(case: Case) -> None:
    check_against_reference(case)
