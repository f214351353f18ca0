"""How well questions are answered: the scores of SQuAD 1.1 and 2.0, TriviaQA and HotpotQA, equal to those that their
published evaluation scripts print.

The scripts differ in what they take for the same answer, in what an empty answer is worth, and in their units: the
scores of SQuAD and TriviaQA are percentages, those of HotpotQA are fractions. Gold and predictions are by the
identifier of the question. Of questions there is one at least; predictions for others count nothing.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

Fact = tuple[str, int]
"""A title and the number of a sentence below it, from 0."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PUNCTUATION_AS_SPACE = {ord(character): " " for character in string.punctuation + "\u2018\u2019\u00b4"}
_VERDICTS = ("yes", "no", "noanswer")
"""Answers of HotpotQA that are right or wrong as a whole."""


class Overlap(NamedTuple):
    """How much of two collections is the same, each a fraction."""

    precision: float
    recall: float
    f1: float


_NO_OVERLAP = Overlap(0.0, 0.0, 0.0)


class AnswerScore(NamedTuple):
    """What a prediction is worth, each a fraction."""

    exact: float
    f1: float


class HotpotAnswer(NamedTuple):
    """An answer of HotpotQA and the sentences that it rests on."""

    answer: str
    facts: Sequence[Fact]


def squad_normalized(text: str) -> str:
    """Returns an answer in lower case without ASCII punctuation, English articles and superfluous spaces.

    HotpotQA normalises in the same way.
    """
    return _without_articles(text.lower().translate(_WITHOUT_PUNCTUATION))


def trivia_normalized(text: str) -> str:
    """Returns an answer as `squad_normalized` does, but with spaces for punctuation, three more quotes included."""
    return _without_articles(text.lower().translate(_PUNCTUATION_AS_SPACE))


def token_overlap(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> Overlap:
    """Returns how much of a prediction is right and how much of the gold it holds; all 0 where nothing is the same."""
    found, wanted = Counter(predicted), Counter(gold)
    same = (found & wanted).total()
    if not same:
        return _NO_OVERLAP
    precision, recall = same / found.total(), same / wanted.total()
    return Overlap(precision, recall, 2 * precision * recall / (precision + recall))


def squad_answer(prediction: str, answers: Sequence[str]) -> AnswerScore:
    """Returns what a prediction is worth by SQuAD 1.1: the best over the answers, of which there is one at least."""
    return _best_answer(prediction, answers, squad_normalized)


def squad2_answer(prediction: str, answers: Sequence[str]) -> AnswerScore:
    """Returns what a prediction is worth by SQuAD 2.0, where a question has no answers or the prediction none.

    Answers that are only articles and punctuation are none. Where either side is empty, both must be.
    """
    found = squad_normalized(prediction)
    wanted = [answer for answer in map(squad_normalized, answers) if answer]
    if not found or not wanted:
        same = float(not found and not wanted)
        return AnswerScore(same, same)
    return squad_answer(prediction, wanted)


def trivia_answer(prediction: str, answers: Sequence[str]) -> AnswerScore:
    """Returns what a prediction is worth by TriviaQA: the best over the answers, of which there is one at least."""
    return _best_answer(prediction, answers, trivia_normalized)


def squad_scores(gold: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> dict[str, float]:
    """Returns exact_match and f1 of SQuAD 1.1, in percent.

    Args:
        gold: the answers of every question, one at least.
        predictions: the text found for a question; one that has none is worth 0.
    """
    return _mean_scores(gold, predictions, squad_answer)


def trivia_scores(gold: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> dict[str, float]:
    """Returns exact_match and f1 of TriviaQA, in percent.

    Args:
        gold: the NormalizedAliases and HumanAnswers of every question, one at least; the identifier is that of the
            question, or in the web setting `question--file`.
        predictions: the text found for a question; one that has none is worth 0.
    """
    return _mean_scores(gold, predictions, trivia_answer)


def squad2_scores(
    gold: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    no_answer: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Returns exact and f1 of SQuAD 2.0 in percent and the total of questions; the same of the questions with an
    answer (HasAns_exact, ...) and of those without (NoAns_exact, ...), where there are such.

    Args:
        gold: the answers of every question; none where there is no answer.
        predictions: of every question the text found, empty where none was.
        no_answer: of every question, how sure it is that there is no answer.
        threshold: where that is larger, the prediction counts as empty.
    """

    def worth(identifier: str) -> AnswerScore:
        if no_answer is not None and no_answer[identifier] > threshold:
            right = float(not gold[identifier])
            return AnswerScore(right, right)
        return squad2_answer(predictions[identifier], gold[identifier])

    scores = {identifier: worth(identifier) for identifier in gold}
    answered = [identifier for identifier, answers in gold.items() if answers]
    unanswered = [identifier for identifier, answers in gold.items() if not answers]
    found: dict[str, float] = {}
    for prefix, members in (("", list(gold)), ("HasAns_", answered), ("NoAns_", unanswered)):
        if members:
            found[f"{prefix}exact"] = 100 * sum(scores[each].exact for each in members) / len(members)
            found[f"{prefix}f1"] = 100 * sum(scores[each].f1 for each in members) / len(members)
            found[f"{prefix}total"] = len(members)
    return found


def squad2_best_thresholds(
    gold: Mapping[str, Sequence[str]], predictions: Mapping[str, str], no_answer: Mapping[str, float]
) -> dict[str, float]:
    """Returns the best exact and f1 of SQuAD 2.0 over all thresholds, in percent, and the threshold of each.

    Questions are answered one after the other, the surest first. Equally sure ones too, in the order of `no_answer`: as
    in the published script, where a threshold that lies among them is then a little too good.

    Args:
        gold, predictions: as in `squad2_scores`; the predictions are those without regard to any threshold.
        no_answer: of every question, how sure it is that there is no answer.

    Returns:
        best_exact, best_exact_thresh, best_f1 and best_f1_thresh. The thresholds are values of `no_answer`, or 0 where
        it is best to answer nothing.
    """
    surest = sorted((each for each in no_answer if each in gold), key=no_answer.__getitem__)
    scores = [squad2_answer(predictions[each], gold[each]) for each in surest]
    found: dict[str, float] = {}
    for name, values in (("exact", [each.exact for each in scores]), ("f1", [each.f1 for each in scores])):
        score = best = float(sum(not answers for answers in gold.values()))
        threshold = 0.0
        for identifier, value in zip(surest, values, strict=True):
            if gold[identifier]:
                score += value
            elif predictions[identifier]:
                score -= 1
            if score > best:
                best, threshold = score, no_answer[identifier]
        found[f"best_{name}"] = 100 * best / len(gold)
        found[f"best_{name}_thresh"] = threshold
    return found


def hotpot_scores(
    gold: Mapping[str, HotpotAnswer], answers: Mapping[str, str], facts: Mapping[str, Sequence[Fact]]
) -> dict[str, float]:
    """Returns the scores of HotpotQA, as fractions.

    Args:
        gold: the answer of every question and the sentences that support it.
        answers: the answer found for a question.
        facts: the sentences found; it does not matter in which order and how often.

    Returns:
        em, f1, prec and recall of the answers; the same of the supporting facts (sp_em, ...) and of both (joint_em,
        ...), where precisions are multiplied, and recalls. What was not found for a question is worth 0.
    """
    names = [f"{part}{name}" for part in ("", "sp_", "joint_") for name in ("em", "f1", "prec", "recall")]
    totals = dict.fromkeys(names, 0.0)
    nothing = _Judged(False, _NO_OVERLAP)
    for identifier, wanted in gold.items():
        answer = _hotpot_answer(answers[identifier], wanted.answer) if identifier in answers else nothing
        support = _hotpot_facts(facts[identifier], wanted.facts) if identifier in facts else nothing
        for part, judged in (("", answer), ("sp_", support), ("joint_", _both(answer, support))):
            totals[f"{part}em"] += judged.exact
            totals[f"{part}f1"] += judged.overlap.f1
            totals[f"{part}prec"] += judged.overlap.precision
            totals[f"{part}recall"] += judged.overlap.recall
    return {name: total / len(gold) for name, total in totals.items()}


class _Judged(NamedTuple):
    exact: bool
    overlap: Overlap


def _hotpot_answer(prediction: str, answer: str) -> _Judged:
    found, wanted = squad_normalized(prediction), squad_normalized(answer)
    if found != wanted and (found in _VERDICTS or wanted in _VERDICTS):
        return _Judged(False, _NO_OVERLAP)
    return _Judged(found == wanted, token_overlap(found.split(), wanted.split()))


def _hotpot_facts(prediction: Sequence[Fact], facts: Sequence[Fact]) -> _Judged:
    found, wanted = set(map(tuple, prediction)), set(map(tuple, facts))
    return _Judged(found == wanted, token_overlap(found, wanted))


def _both(answer: _Judged, support: _Judged) -> _Judged:
    precision = answer.overlap.precision * support.overlap.precision
    recall = answer.overlap.recall * support.overlap.recall
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return _Judged(answer.exact and support.exact, Overlap(precision, recall, f1))


def _mean_scores(
    gold: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    worth: Callable[[str, Sequence[str]], AnswerScore],
) -> dict[str, float]:
    scores = [worth(predictions[each], answers) for each, answers in gold.items() if each in predictions]
    return {
        "exact_match": 100 * sum(score.exact for score in scores) / len(gold),
        "f1": 100 * sum(score.f1 for score in scores) / len(gold),
    }


def _best_answer(prediction: str, answers: Sequence[str], normalized: Callable[[str], str]) -> AnswerScore:
    found = normalized(prediction)
    wanted = [normalized(answer) for answer in answers]
    return AnswerScore(
        exact=float(found in wanted),
        f1=max(token_overlap(found.split(), answer.split()).f1 for answer in wanted),
    )


def _without_articles(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text).split())
