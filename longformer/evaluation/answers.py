"""How well questions are answered, with intervals; what one answer is worth is told by `question_answering`."""

from collections.abc import Mapping, Sequence

import numpy as np

from longformer.evaluation.classification import Scores, with_confidence
from longformer.evaluation.question_answering import AnswerScore, squad2_best_thresholds


def answer_scores(worth: Sequence[AnswerScore], has_answer: Sequence[bool]) -> Scores:
    """Returns the scores of questions, as fractions.

    Args:
        worth: what each prediction is worth.
        has_answer: whether each question has an answer.

    Returns:
        exact and f1, and `confidence_95` with low and high of each; where some questions have answers and some have
        none also has_answer_exact, has_answer_f1 and no_answer_accuracy.

    Raises:
        ValueError: there is no question.
    """
    if not worth:
        raise ValueError("there is no question to score")
    values = np.array(worth, dtype=np.float64)

    def means(weights: np.ndarray) -> dict[str, float]:
        exact, f1 = weights @ values / weights.sum()
        return {"exact": float(exact), "f1": float(f1)}

    found = with_confidence(means, len(values), values.size)
    with_answer = np.array(has_answer, dtype=bool)
    if with_answer.any() and not with_answer.all():
        exact, f1 = values[with_answer].mean(0)
        found |= {
            "has_answer_exact": float(exact),
            "has_answer_f1": float(f1),
            "no_answer_accuracy": float(values[~with_answer, 0].mean()),
        }
    return found


def best_no_answer(
    answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str], no_answer: Mapping[str, float]
) -> float | None:
    """Returns above which probability of no answer to answer nothing gives the best F1; None where all have answers.

    It is half-way between those of the last question that is answered and the first that is not. Arguments as in
    `squad2_best_thresholds`.
    """
    if all(answers.values()):
        return None
    last = squad2_best_thresholds(answers, predictions, no_answer)["best_f1_thresh"]
    return (last + min((each for each in no_answer.values() if each > last), default=1.0)) / 2
