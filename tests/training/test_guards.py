"""The guard refuses what no healthy training has, and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longformer.training.guards import LOSS_HISTORY, MIN_LOSSES, BadLoss, GuardSettings, LossGuard

SETTINGS = GuardSettings(on_bad_loss="stop", spike_threshold=8.0)
losses = st.floats(0.5, 3.0)


def guard_after(recent: list[float]) -> LossGuard:
    guard = LossGuard(SETTINGS)
    for loss in recent:
        guard.record(loss)
    return guard


@given(st.lists(losses, max_size=100), st.integers(1, 4), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_loss_that_is_not_finite_on_any_rank_is_refused_with_the_rank(
    recent: list[float], ranks: int, bad: float
) -> None:
    with pytest.raises(BadLoss, match=f"{bad} on rank {ranks - 1}"):
        guard_after(recent).check([1.0] * (ranks - 1) + [bad])


@given(st.lists(losses, min_size=MIN_LOSSES, max_size=200))
def test_a_spike_is_refused_however_the_losses_before_it_were_spread(recent: list[float]) -> None:
    guard = guard_after(recent)
    remembered = recent[-LOSS_HISTORY:]
    widest = max(remembered) - min(remembered)
    with pytest.raises(BadLoss, match="jumped to"):
        guard.check([max(remembered) + 12.0 * widest + 1e-6])


@given(st.lists(losses, min_size=MIN_LOSSES, max_size=200))
def test_a_loss_no_higher_than_the_median_always_passes(recent: list[float]) -> None:
    remembered = sorted(recent[-LOSS_HISTORY:])
    guard_after(recent).check([remembered[(len(remembered) - 1) // 2]])


def test_one_spike_does_not_excuse_the_next() -> None:
    guard = guard_after([2.0 + 0.01 * (step % 7) for step in range(40)] + [9.0, 9.0, 9.0])
    with pytest.raises(BadLoss):
        guard.check([9.0])


def test_nothing_is_a_spike_while_there_is_little_to_judge_by_or_none_are_looked_for() -> None:
    guard_after([2.0] * (MIN_LOSSES - 1)).check([100.0])
    tolerant = LossGuard(GuardSettings(on_bad_loss="stop", spike_threshold=None), [2.0] * 64)
    tolerant.check([100.0])


def test_a_guard_given_the_recorded_losses_judges_like_the_one_that_saw_them() -> None:
    recorded = [2.0 + 0.1 * math.sin(step) for step in range(100)]
    assert vars(LossGuard(SETTINGS, recorded)) == vars(guard_after(recorded))
