import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.sampling.order import permutation, sample_at

sizes = st.integers(1, 2_000)
seeds = st.integers(-(2**70), 2**70)


def epoch_order(epoch: int, *, size: int, seed: int) -> list[int]:
    return [sample_at(epoch * size + offset, epoch_size=size, seed=seed) for offset in range(size)]


@given(sizes, st.integers(0, 10**9), seeds)
def test_every_epoch_visits_every_sample_once(size: int, epoch: int, seed: int) -> None:
    assert sorted(epoch_order(epoch, size=size, seed=seed)) == list(range(size))


@given(sizes, st.integers(0, 10**9), seeds)
def test_a_permutation_made_at_once_is_the_one_made_step_by_step(size: int, epoch: int, seed: int) -> None:
    assert permutation(size, (seed, epoch)).tolist() == epoch_order(epoch, size=size, seed=seed)


@settings(max_examples=30)
@given(st.integers(10**6, 10**13), st.integers(0, 1000), seeds)
def test_a_stretch_of_a_huge_epoch_has_no_sample_twice(size: int, epoch: int, seed: int) -> None:
    samples = [sample_at(epoch * size + offset, epoch_size=size, seed=seed) for offset in range(2_000)]
    assert len(set(samples)) == len(samples)
    assert 0 <= min(samples) <= max(samples) < size


@given(st.integers(20, 2_000), st.integers(0, 10**6), seeds)
def test_order_differs_between_epochs_and_between_seeds(size: int, epoch: int, seed: int) -> None:
    order = epoch_order(epoch, size=size, seed=seed)
    assert order != epoch_order(epoch + 1, size=size, seed=seed)
    assert order != epoch_order(epoch, size=size, seed=seed + 1)


def test_order_never_changes_between_versions() -> None:
    # A checkpoint's position only means something as long as these numbers stay.
    assert epoch_order(0, size=10, seed=0) == [6, 9, 1, 3, 2, 0, 7, 5, 8, 4]


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("size", [2, 3, 7, 16, 30])
def test_every_sample_is_as_likely_at_every_place(size: int) -> None:
    epochs = 4_000
    counts = np.zeros((size, size))
    for epoch in range(epochs):
        counts[np.arange(size), epoch_order(epoch, size=size, seed=5)] += 1
    # Sequences and columns have fixed sums: (size-1)^2 degrees of freedom, and six standard deviations of room.
    freedom = (size - 1) ** 2
    assert chi_square(counts) * (size - 1) / size < freedom + 6 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("size", [1_000, 1_024, 1_373])
def test_neighbours_do_not_stay_together(size: int) -> None:
    epochs = 200
    orders = np.array([epoch_order(epoch, size=size, seed=1) for epoch in range(epochs)])
    steps = np.diff(orders, axis=1) % size
    # In a random permutation each step 1 .. size-1 is equally likely.
    counts = np.bincount(steps.ravel(), minlength=size)[1:]
    freedom = size - 2
    assert chi_square(counts) < freedom + 6 * (2 * freedom) ** 0.5


def test_epochs_are_uncorrelated() -> None:
    orders = np.array([epoch_order(epoch, size=500, seed=2) for epoch in range(100)], dtype=float)
    correlations = np.corrcoef(orders) - np.eye(100)
    assert np.abs(correlations).max() < 6 / 500**0.5


@pytest.mark.parametrize(("position", "size"), [(-1, 5), (0, 0), (3, -2)])
def test_impossible_arguments_are_refused(position: int, size: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        sample_at(position, epoch_size=size, seed=0)
