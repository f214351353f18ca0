"""Claims about the scores of classified texts: those of the definitions, and of scikit-learn's conventions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longformer.evaluation.classification import classification_scores


def test_scores_of_a_small_table_are_those_counted_by_hand() -> None:
    # Class 0: one of two found, nothing else called so. Class 1: one found, one too many. Class 2: never found.
    scores = classification_scores([0, 1, 1, 0], [0, 0, 1, 2])
    assert scores["accuracy"] == pytest.approx(2 / 4)
    assert scores["macro_f1"] == pytest.approx((2 * 1 / 4 + 2 * 1 / 3 + 0) / 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_macro_f1_is_the_mean_of_precision_and_recall_taken_together_class_by_class(pairs: list) -> None:
    predicted, expected = zip(*pairs, strict=True)
    scores = []
    for each in sorted({*predicted, *expected}):
        right = sum(pair == (each, each) for pair in pairs)
        precision = right / predicted.count(each) if each in predicted else 0.0
        recall = right / expected.count(each) if each in expected else 0.0
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    assert classification_scores(predicted, expected)["macro_f1"] == pytest.approx(sum(scores) / len(scores))


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no text to score"):
        classification_scores([], [])
