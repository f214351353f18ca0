"""Claims about the scores of answers: those of the published evaluation scripts."""

import json
from pathlib import Path

import pytest

from longformer.evaluation.question_answering import (
    HotpotAnswer,
    hotpot_scores,
    squad2_best_thresholds,
    squad2_scores,
    squad_scores,
    trivia_scores,
)

# 210 cases of 1 to 30 questions: random words and nasty ones (accents composed and not, other scripts, quotes, articles
# and punctuation alone, nothing, yes/no/noanswer), predictions near the gold or not, some missing, some for other
# questions, equal thresholds, facts twice. The scores beside them are what the published scripts printed:
# evaluate-v1.1.py and evaluate-v2.0.py of SQuAD (the latter without and with --na-prob-file), triviaqa_evaluation.py
# and hotpot_evaluate_v1.py.
CASES = json.loads(Path(__file__).with_name("question_answering_scores.json").read_text(encoding="utf-8"))


def test_scores_are_those_of_the_script_of_squad_1() -> None:
    for case in CASES["squad"]:
        assert squad_scores(case["gold"], case["predictions"]) == pytest.approx(case["scores"])


def test_scores_and_best_thresholds_are_those_of_the_script_of_squad_2() -> None:
    for case in CASES["squad2"]:
        gold, predictions, no_answer = case["gold"], case["predictions"], case["no_answer"]
        assert squad2_scores(gold, predictions) == pytest.approx(case["scores"])
        found = squad2_scores(gold, predictions, no_answer, case["threshold"])
        found |= squad2_best_thresholds(gold, predictions, no_answer)
        assert found == pytest.approx(case["scores_with_threshold"])


def test_scores_are_those_of_the_script_of_triviaqa() -> None:
    for case in CASES["trivia"]:
        gold = {
            identifier: [*answer["NormalizedAliases"], *answer.get("HumanAnswers", [])]
            for identifier, answer in case["answers"].items()
        }
        wanted = {name: case["scores"][name] for name in ("exact_match", "f1")}
        assert trivia_scores(gold, case["predictions"]) == pytest.approx(wanted)


def test_scores_are_those_of_the_script_of_hotpotqa() -> None:
    for case in CASES["hotpot"]:
        gold = {each["_id"]: HotpotAnswer(each["answer"], each["supporting_facts"]) for each in case["gold"]}
        assert hotpot_scores(gold, case["answer"], case["sp"]) == pytest.approx(case["scores"])
