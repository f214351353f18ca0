"""How well texts are classified: accuracy and macro F1."""

from collections.abc import Sequence


def classification_scores(predicted: Sequence[int], expected: Sequence[int]) -> dict[str, float]:
    """Returns the accuracy, and F1 as the plain mean over all classes that are predicted or expected ("macro").

    A class that is never predicted rightly has an F1 of 0, as in scikit-learn.

    Args:
        predicted, expected: the class of every text, in the same order.

    Raises:
        ValueError: there are no texts, or not equally many of both.
    """
    pairs = list(zip(predicted, expected, strict=True))
    if not pairs:
        raise ValueError("there is no text to score")
    scores = []
    for each in {*predicted, *expected}:
        right = sum(found == wanted == each for found, wanted in pairs)
        named = sum(found == each for found, _ in pairs) + sum(wanted == each for _, wanted in pairs)
        scores.append(2 * right / named)
    return {
        "accuracy": sum(found == wanted for found, wanted in pairs) / len(pairs),
        "macro_f1": sum(scores) / len(scores),
    }
