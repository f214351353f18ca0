"""How well labels are predicted: classes, several classes, numbers; each score with its interval of confidence.

All scores are weighted sums over the texts, so that the same code gives them for all texts and for every resample of
the bootstrap, in which a text weighs as often as it was drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Scores = dict[str, Any]
THRESHOLD = 0.5
"""Of several classes, those hold whose probability is at least this."""
BINS = 15
"""Of the calibration error, of equal width (Guo et al. 2017, On Calibration of Modern Neural Networks)."""
_RESAMPLES = (100, 1_000)
"""The fewest, for very many texts and classes, and the most."""
_RESAMPLED_VALUES = 200_000_000


def label_scores(problem: str, values: np.ndarray, expected: np.ndarray, classes: Sequence[str]) -> Scores:
    """Returns the scores of a problem: single_label, multi_label or regression.

    Args:
        problem: decides which of the functions below scores.
        values: (texts, outputs) float, probabilities of the classes or the number.
        expected: as these functions take it.
        classes: their names; of a regression none.
    """
    if problem == "regression":
        return regression_scores(values[:, 0], expected)
    scores = multi_label_scores if problem == "multi_label" else single_label_scores
    return scores(values, expected, classes)


def single_label_scores(
    probabilities: np.ndarray, expected: np.ndarray, classes: Sequence[str], documents: np.ndarray | None = None
) -> Scores:
    """Returns how well one class per text is predicted.

    Precision, recall and F1 are the plain mean over all classes that are predicted or expected (macro) or of all
    decisions together (micro); one that is undefined counts 0, as in scikit-learn. AUROC and average precision are
    those of the second class where there are two, else the mean over the classes against the rest.

    Args:
        probabilities: (texts, classes) float, of every text every class.
        expected: (texts,) int, the number of the class.
        classes: their names.
        documents: (texts,) int, where the texts are parts of documents, such as words: the number of the one that each
            belongs to. The bootstrap then draws documents.

    Returns:
        accuracy, macro_precision, macro_recall, macro_f1, micro_f1, mcc, auroc, average_precision and ece (expected
        calibration error), those left out that are not defined; `confidence_95` with low and high of each; `per_class`
        with precision, recall, f1 and texts.

    Raises:
        ValueError: there are no texts.
    """
    _check_any(expected)
    count = len(classes)
    predicted = probabilities.argmax(1)
    cells = expected * count + predicted
    judged = range(count) if count > 2 else range(1, count)
    rankings = [_Ranking.of(probabilities[:, number], expected == number) for number in judged]
    calibration = _Calibration.of(probabilities.max(1), predicted == expected)

    def confusion(weights: np.ndarray) -> np.ndarray:
        return np.bincount(cells, weights, minlength=count * count).reshape(count, count)

    def scores(weights: np.ndarray) -> dict[str, float]:
        matrix = confusion(weights)
        right = np.diag(matrix)
        by_class = f1_parts(right, matrix.sum(0), matrix.sum(1))
        accuracy = right.sum() / matrix.sum()
        return {
            "accuracy": accuracy,
            **_macro(by_class, (matrix.sum(0) + matrix.sum(1)) > 0),
            "micro_f1": accuracy,
            "mcc": _mcc(matrix),
            **_ranked(rankings, weights),
            "ece": calibration.error(weights),
        }

    matrix = confusion(np.ones(len(expected)))
    per_class = _per_class(classes, f1_parts(np.diag(matrix), matrix.sum(0), matrix.sum(1)), matrix.sum(1))
    return {**with_confidence(scores, len(expected), probabilities.size, documents), "per_class": per_class}


def multi_label_scores(probabilities: np.ndarray, expected: np.ndarray, classes: Sequence[str]) -> Scores:
    """Returns how well any number of classes per text is predicted, those of at least THRESHOLD.

    Args:
        probabilities: (texts, classes) float.
        expected: (texts, classes), 1 where the class holds, else 0.
        classes: their names.

    Returns:
        as `single_label_scores`, with exact_match, micro_precision and micro_recall in place of accuracy and mcc.

    Raises:
        ValueError: there are no texts.
    """
    _check_any(expected)
    holds = expected.astype(np.float64)
    predicted = (probabilities >= THRESHOLD).astype(np.float64)
    hits = predicted * holds
    exact = (predicted == holds).all(1)
    rankings = [_Ranking.of(probabilities[:, number], holds[:, number]) for number in range(len(classes))]
    calibration = _Calibration.of(probabilities.ravel(), holds.ravel())

    def scores(weights: np.ndarray) -> dict[str, float]:
        right, found, wanted = weights @ hits, weights @ predicted, weights @ holds
        micro = f1_parts(right.sum(), found.sum(), wanted.sum())
        return {
            "exact_match": weights @ exact / weights.sum(),
            **{f"micro_{name}": float(value) for name, value in micro.items()},
            **_macro(f1_parts(right, found, wanted), np.ones(len(classes), dtype=bool)),
            **_ranked(rankings, weights),
            "ece": calibration.error(np.repeat(weights, len(classes))),
        }

    per_class = _per_class(classes, f1_parts(hits.sum(0), predicted.sum(0), holds.sum(0)), holds.sum(0))
    return {**with_confidence(scores, len(expected), probabilities.size), "per_class": per_class}


def regression_scores(predicted: np.ndarray, expected: np.ndarray) -> Scores:
    """Returns how well numbers are predicted.

    Args:
        predicted, expected: (texts,) float.

    Returns:
        mean_absolute_error, root_mean_squared_error, r2, pearson and spearman, those left out that are not defined
        because all numbers are equal; `confidence_95` with low and high of each.

    Raises:
        ValueError: there are no texts.
    """
    _check_any(expected)

    def scores(weights: np.ndarray) -> dict[str, float]:
        # Of a resample: ranks are not sums over texts.
        drawn = np.repeat(np.arange(len(expected)), weights.astype(int))
        found, wanted = predicted[drawn], expected[drawn]
        error = found - wanted
        return {
            "mean_absolute_error": np.abs(error).mean(),
            "root_mean_squared_error": np.sqrt((error**2).mean()),
            "r2": 1 - (error**2).sum() / ((wanted - wanted.mean()) ** 2).sum() if np.ptp(wanted) else np.nan,
            "pearson": _correlation(found, wanted),
            "spearman": _correlation(_ranks(found), _ranks(wanted)),
        }

    return with_confidence(scores, len(expected), len(expected))


def choice_scores(probabilities: Sequence[np.ndarray], expected: Sequence[int]) -> Scores:
    """Returns how often the right one of several choices is found.

    Args:
        probabilities: of the choices of each text, (choices,) float; their number may differ.
        expected: the number of the right choice of each text.

    Returns:
        accuracy, and ece (expected calibration error); `confidence_95` with low and high of each.

    Raises:
        ValueError: there are no texts.
    """
    wanted = np.array(expected)
    _check_any(wanted)
    right = np.array([each.argmax() for each in probabilities]) == wanted
    calibration = _Calibration.of(np.array([each.max() for each in probabilities]), right)

    def scores(weights: np.ndarray) -> dict[str, float]:
        return {"accuracy": weights @ right / weights.sum(), "ece": calibration.error(weights)}

    return with_confidence(scores, len(wanted), len(wanted))


def without_classes(scores: Scores) -> Scores:
    """Returns the scores without those of every class or type."""
    return {name: value for name, value in scores.items() if name not in ("per_class", "per_type")}


def _check_any(expected: np.ndarray) -> None:
    if not len(expected):
        raise ValueError("there is no text to score")


def with_confidence(
    scores: Callable[[np.ndarray], dict[str, float]], texts: int, values: int, documents: np.ndarray | None = None
) -> Scores:
    """Returns the scores of all texts, and between which values 95 % of those of resamples lie (percentiles).

    Args:
        scores: of texts that weigh as an array (texts,) says.
        texts: their number.
        values: how many numbers each call of `scores` reads; of very many there are fewer resamples.
        documents: as in `single_label_scores`.
    """
    drawn_from = texts if documents is None else int(documents.max()) + 1
    found = {name: float(value) for name, value in scores(np.ones(texts)).items() if np.isfinite(value)}
    fewest, most = _RESAMPLES
    random = np.random.default_rng(0)
    resampled = []
    for _ in range(min(most, max(fewest, _RESAMPLED_VALUES // values))):
        drawn = np.bincount(random.integers(drawn_from, size=drawn_from), minlength=drawn_from).astype(np.float64)
        resampled.append(scores(drawn if documents is None else drawn[documents]))
    confidence = {}
    for name in found:
        values_of_name = np.array([each[name] for each in resampled])
        low, high = np.percentile(values_of_name[np.isfinite(values_of_name)], [2.5, 97.5])
        confidence[name] = {"low": float(low), "high": float(high)}
    return {**found, "confidence_95": confidence}


def f1_parts(right: Any, found: Any, wanted: Any) -> dict[str, Any]:
    """Returns precision, recall and F1 of counts of any shape; 0 where nothing was found or wanted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = {"precision": right / found, "recall": right / wanted, "f1": 2 * right / (found + wanted)}
    return {name: np.nan_to_num(value, nan=0.0, posinf=0.0) for name, value in parts.items()}


def _macro(by_class: dict[str, np.ndarray], counted: np.ndarray) -> dict[str, float]:
    return {f"macro_{name}": value[counted].mean() for name, value in by_class.items()}


def _per_class(classes: Sequence[str], parts: dict[str, np.ndarray], texts: np.ndarray) -> Scores:
    return {
        name: {**{part: float(value[number]) for part, value in parts.items()}, "texts": int(texts[number])}
        for number, name in enumerate(classes)
    }


def _mcc(matrix: np.ndarray) -> float:
    """Returns Matthews' correlation of a confusion matrix (Gorodkin 2004); 0 where one side is constant."""
    found, wanted, total = matrix.sum(0), matrix.sum(1), matrix.sum()
    spread = (total**2 - found @ found) * (total**2 - wanted @ wanted)
    return float((np.trace(matrix) * total - found @ wanted) / np.sqrt(spread)) if spread > 0 else 0.0


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) and np.ptp(second) else np.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns the rank of each value, equal values sharing the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks


def _ranked(rankings: Sequence["_Ranking"], weights: np.ndarray) -> dict[str, float]:
    """Returns the mean AUROC and average precision over the classes for which they are defined."""
    areas = [ranking.areas(weights) for ranking in rankings]
    defined = [area for area in areas if area is not None]
    auroc, precision = np.mean(defined, axis=0) if defined else (np.nan, np.nan)
    return {"auroc": auroc, "average_precision": precision}


@dataclass(frozen=True)
class _Ranking:
    """Texts in the order of a score, those of equal score together."""

    groups: np.ndarray
    """(texts,) int: the group of each text, the lowest score first."""
    positive: np.ndarray
    """(texts,) float: 1 where the class holds."""

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> "_Ranking":
        return cls(np.unique(scores, return_inverse=True)[1], positive.astype(np.float64))

    def areas(self, weights: np.ndarray) -> tuple[float, float] | None:
        """Returns the area under the ROC curve and the average precision; None where all texts are of one kind."""
        positive = np.bincount(self.groups, weights * self.positive)
        negative = np.bincount(self.groups, weights * (1 - self.positive))
        positives, negatives = positive.sum(), negative.sum()
        if not positives or not negatives:
            return None
        below = np.cumsum(negative) - negative
        auroc = positive @ (below + negative / 2) / (positives * negatives)
        true, false = np.cumsum(positive[::-1]), np.cumsum(negative[::-1])
        precision = true / np.maximum(true + false, 1e-300)
        return float(auroc), float(positive[::-1] @ precision / positives)


@dataclass(frozen=True)
class _Calibration:
    """Probabilities of statements, and whether they were right."""

    probabilities: np.ndarray
    right: np.ndarray
    bins: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, right: np.ndarray) -> "_Calibration":
        return cls(probabilities, right.astype(np.float64), np.minimum((probabilities * BINS).astype(int), BINS - 1))

    def error(self, weights: np.ndarray) -> float:
        """Returns how far, in the mean, probabilities are from the share of what was right."""
        gaps = np.bincount(self.bins, weights * (self.probabilities - self.right), minlength=BINS)
        return float(np.abs(gaps).sum() / weights.sum())
