"""Learning rates rise, stay or fall as promised."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longformer.training.schedules import learning_rate_at

phases = st.tuples(st.integers(1, 200), st.integers(0, 200)).filter(lambda pair: pair[1] <= pair[0])
decays = st.sampled_from(["constant", "linear", "cosine", "cubic", "wsd"])


@given(phases, decays, st.floats(1e-6, 1.0))
def test_it_rises_evenly_to_the_peak_and_never_rises_again(phase: tuple[int, int], decay: Any, peak: float) -> None:
    total, warmup = phase
    rates = [
        learning_rate_at(step, peak=peak, warmup_steps=warmup, total_steps=total, decay=decay) for step in range(total)
    ]
    for step in range(warmup):
        assert rates[step] == pytest.approx(peak * (step + 1) / warmup)
    after = rates[warmup:]
    assert after == sorted(after, reverse=True)
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    if after:
        assert after[0] == pytest.approx(peak)


@pytest.mark.parametrize(("decay", "half_way"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5), ("cubic", 0.125)])
def test_half_way_through_the_decay(decay: Any, half_way: float) -> None:
    assert learning_rate_at(60, peak=1.0, warmup_steps=20, total_steps=100, decay=decay) == pytest.approx(half_way)


def test_wsd_stays_at_the_peak_and_falls_evenly_over_the_last_part() -> None:
    rates = [
        learning_rate_at(step, peak=1.0, warmup_steps=10, total_steps=100, decay="wsd", decay_part=0.25)
        for step in range(100)
    ]
    assert rates[9:76] == [1.0] * 67
    assert rates[75:] == pytest.approx([left / 25 for left in range(25, 0, -1)])


@pytest.mark.parametrize("step", [-1, 10])
def test_a_step_outside_the_phase_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match="outside the phase"):
        learning_rate_at(step, peak=1.0, warmup_steps=0, total_steps=10)
