"""Claims about the scores of predicted labels: those of scikit-learn, weighted or not, and of a bootstrap by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn import metrics

from longformer.evaluation.baselines import tfidf_predictions
from longformer.evaluation.classification import (
    _Ranking,
    multi_label_scores,
    regression_scores,
    single_label_scores,
)

SEEDS = st.integers(0, 2**32 - 1)


def random_case(seed: int, classes: int, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and classes of which some may not occur."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), size=texts).round(1)
    return probabilities, random.integers(0, random.integers(1, classes + 1), size=texts)


@settings(max_examples=20)
@given(SEEDS, st.integers(2, 5), st.integers(1, 40))
def test_scores_of_one_class_are_those_of_scikit_learn(seed: int, classes: int, texts: int) -> None:
    probabilities, expected = random_case(seed, classes, texts)
    predicted = probabilities.argmax(1)
    scores = single_label_scores(probabilities, expected, [str(number) for number in range(classes)])
    macro = metrics.precision_recall_fscore_support(expected, predicted, average="macro", zero_division=0)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(expected, predicted))
    assert [scores["macro_precision"], scores["macro_recall"], scores["macro_f1"]] == pytest.approx(macro[:3])
    assert scores["micro_f1"] == pytest.approx(metrics.f1_score(expected, predicted, average="micro"))
    assert scores["mcc"] == pytest.approx(metrics.matthews_corrcoef(expected, predicted))
    areas = [
        (metrics.roc_auc_score(expected == each, probabilities[:, each]),
         metrics.average_precision_score(expected == each, probabilities[:, each]))
        for each in (range(classes) if classes > 2 else [1]) if 0 < sum(expected == each) < texts
    ]  # fmt: skip
    if areas:
        assert [scores["auroc"], scores["average_precision"]] == pytest.approx(np.mean(areas, axis=0))
    else:
        assert "auroc" not in scores
    by_class = metrics.precision_recall_fscore_support(
        expected, predicted, labels=list(range(classes)), zero_division=0
    )
    found = np.array([list(each.values()) for each in scores["per_class"].values()])
    np.testing.assert_allclose(found.T, np.array(by_class))


@settings(max_examples=20)
@given(SEEDS, st.integers(2, 4), st.integers(1, 40))
def test_scores_of_several_classes_are_those_of_scikit_learn(seed: int, classes: int, texts: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, expected = random.random((texts, classes)).round(1), random.integers(0, 2, size=(texts, classes))
    predicted = probabilities >= 0.5
    scores = multi_label_scores(probabilities, expected, [str(number) for number in range(classes)])
    assert scores["exact_match"] == pytest.approx((predicted == expected).all(1).mean())
    for average in ("micro", "macro"):
        wanted = metrics.precision_recall_fscore_support(expected, predicted, average=average, zero_division=0)[:3]
        assert [scores[f"{average}_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(wanted)


@given(SEEDS, st.integers(2, 60))
def test_areas_under_weights_are_those_of_texts_that_occur_so_often(seed: int, texts: int) -> None:
    random = np.random.default_rng(seed)
    scores, positive = random.random(texts).round(1), random.integers(0, 2, size=texts)
    weights = random.integers(0, 4, size=texts)
    drawn = np.repeat(np.arange(texts), weights)
    areas = _Ranking.of(scores, positive).areas(weights.astype(float))
    if len(set(positive[drawn])) < 2:
        assert areas is None
    else:
        assert areas == pytest.approx(
            (
                metrics.roc_auc_score(positive[drawn], scores[drawn]),
                metrics.average_precision_score(positive[drawn], scores[drawn]),
            )
        )


def test_the_interval_of_an_accuracy_is_that_of_its_binomial_distribution() -> None:
    random = np.random.default_rng(0)
    right = random.random(2_000) < 0.8
    probabilities = np.stack([np.where(right, 0.9, 0.1), np.where(right, 0.1, 0.9)], 1)
    scores = single_label_scores(probabilities, np.zeros(2_000, dtype=int), ["a", "b"])
    accuracy, interval = scores["accuracy"], scores["confidence_95"]["accuracy"]
    spread = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2_000)
    assert [interval["low"], interval["high"]] == pytest.approx([accuracy - spread, accuracy + spread], abs=0.002)
    # Where nine of ten are claimed and eight are right: one tenth too sure.
    assert scores["ece"] == pytest.approx(0.9 - accuracy)


def test_regression_is_scored_by_error_and_correlation_and_constants_have_none() -> None:
    expected, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 2.5, 2.5, 2.0])
    scores = regression_scores(predicted, expected)
    assert scores["mean_absolute_error"] == pytest.approx(0.875)
    assert scores["r2"] == pytest.approx(metrics.r2_score(expected, predicted))
    assert scores["pearson"] == pytest.approx(np.corrcoef(predicted, expected)[0, 1])
    assert scores["spearman"] == pytest.approx(spearmanr(predicted, expected).statistic)
    assert set(regression_scores(np.ones(3), np.ones(3))) == {
        "mean_absolute_error", "root_mean_squared_error", "confidence_95",
    }  # fmt: skip


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no text to score"):
        single_label_scores(np.empty((0, 2)), np.empty(0, dtype=int), ["a", "b"])


def test_a_linear_model_of_words_needs_words_that_texts_share() -> None:
    labels = np.array([0, 1, 0, 1])
    options = {"problem": "single_label", "outputs": 2}
    found = tfidf_predictions(["good film", "bad film", "good end", "bad end"], labels, ["good", "bad"], **options)
    assert found is not None
    assert found.argmax(1).tolist() == [0, 1]
    assert tfidf_predictions(["这是一部好电影", "另一部坏电影", "好结局", "坏结局"], labels, ["好"], **options) is None
