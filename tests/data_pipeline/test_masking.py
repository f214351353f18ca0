import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.sampling.masking import IGNORED, Masking
from data_pipeline.tokenizers.tokenizer import SpecialTokens, TokenizerRecord

TOKENIZER = TokenizerRecord(
    file="tokenizer.json",
    sha256="",
    vocabulary_size=1_000,
    token_type="uint16",
    special=SpecialTokens(begin=0, padding=1, end=2, others=(3,), mask=999),
)
MANY = np.random.default_rng(0).integers(4, 999, 500_000)


def masked(tokens: np.ndarray, position: int = 0, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return Masking(TOKENIZER, seed=seed)(tokens, position)


@given(st.lists(st.integers(0, 999), max_size=300), st.integers(0, 2**70), st.integers(-(2**70), 2**70))
def test_labels_are_the_hidden_tokens_and_nothing_else_is_changed(tokens: list[int], position: int, seed: int) -> None:
    original = np.array(tokens, dtype=np.int64)
    inputs, labels = masked(original, position, seed=seed)
    hidden = labels != IGNORED
    assert np.array_equal(labels[hidden], original[hidden])
    assert np.array_equal(inputs[~hidden], original[~hidden])
    assert not hidden[np.isin(original, [0, 1, 2, 3, 999])].any()


def test_shares_are_15_percent_and_of_these_80_10_10() -> None:
    inputs, labels = masked(MANY)
    hidden = labels != IGNORED
    assert hidden.mean() == pytest.approx(0.15, abs=0.002)
    kinds = inputs[hidden], MANY[hidden]
    assert (kinds[0] == 999).mean() == pytest.approx(0.8, abs=0.008)
    # One random token in 995 is the token itself.
    assert (kinds[0] == kinds[1]).mean() == pytest.approx(0.1, abs=0.006)


def test_random_tokens_are_ordinary_and_all_are_as_likely() -> None:
    inputs, labels = masked(MANY)
    random = inputs[(labels != IGNORED) & (inputs != 999) & (inputs != MANY)]
    counts = np.bincount(random, minlength=1_000)
    assert counts[[0, 1, 2, 3, 999]].sum() == 0
    expected = len(random) / 995
    freedom = 994
    assert ((counts[4:999] - expected) ** 2 / expected).sum() < freedom + 6 * (2 * freedom) ** 0.5


def test_masks_differ_between_positions_and_seeds_and_are_independent() -> None:
    tokens = MANY[:20_000]
    masks = [
        masked(tokens, position, seed=seed)[1] != IGNORED for position, seed in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    ]
    for number, one in enumerate(masks):
        for other in masks[:number]:
            assert (one & other).mean() == pytest.approx(0.15**2, abs=0.006)


def test_masks_never_change_between_versions() -> None:
    inputs, labels = masked(np.arange(100, 140), 12_345, seed=7)
    assert np.flatnonzero(labels != IGNORED).tolist() == [1, 23, 25, 28, 32, 35, 38]
    assert inputs[labels != IGNORED].tolist() == [999, 999, 125, 999, 999, 666, 411]


@pytest.mark.parametrize("chosen", [0.0, 1.0, -0.1])
def test_impossible_share_is_refused(chosen: float) -> None:
    with pytest.raises(ValueError, match="chosen must lie between 0 and 1"):
        Masking(TOKENIZER, seed=0, chosen=chosen)
