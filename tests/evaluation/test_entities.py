"""Claims about the scores of entities: those of seqeval, and their intervals."""

import json
from pathlib import Path

import pytest

from longformer.evaluation import classification
from longformer.evaluation.entities import Entity, entities, entity_scores, has_entities, type_confusions

# 300 cases of 1 to 4 random documents, of which three quarters of the words or more have the right tag, drawn from
# IOB2, BIOES, tags without a type and types with hyphens; most hold tags that no scheme allows, such as I-LOC behind
# B-PER. The scores beside them are those of seqeval 1.2.2: `classification_report(expected, predicted,
# output_dict=True, zero_division=0)` as [precision, recall, f1, support], and `accuracy_score`.
CASES = json.loads(Path(__file__).with_name("seqeval_scores.json").read_text())


def test_scores_are_those_of_seqeval_on_valid_and_invalid_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "_RESAMPLES", (1, 1))
    for case in CASES:
        expected, predicted = ([document.split() for document in case[name]] for name in ("expected", "predicted"))
        scores = entity_scores(expected, predicted)
        golden = case["scores"]
        for average in ("micro", "macro"):
            found = [scores[f"{average}_{part}"] for part in ("precision", "recall", "f1")]
            assert found == pytest.approx(golden.pop(f"{average} avg", [0, 0, 0])[:3])
        assert scores["accuracy"] == pytest.approx(case["accuracy"])
        assert {name: list(each.values()) for name, each in scores["per_type"].items()} == {
            name: pytest.approx(values) for name, values in golden.items()
        }


def test_an_entity_begins_where_none_goes_on() -> None:
    tags = ["I-a", "I-a", "B-a", "I-b", "E-b", "I-b", "O", "S-b", "E-b"]
    assert entities(tags) == [
        Entity(0, 2, "a"), Entity(2, 3, "a"), Entity(3, 5, "b"), Entity(5, 6, "b"), Entity(7, 8, "b"), Entity(8, 9, "b")
    ]  # fmt: skip
    assert has_entities(["O", "B-a", "I", "S-b-c"])
    assert not has_entities(["NOUN", "O"])
    assert not has_entities(["B-a", "I-a"])
    assert not has_entities(["O"])


def test_types_are_confused_where_first_and_last_word_are_the_same() -> None:
    expected = ["B-a", "I-a", "O", "B-b", "O", "B-a"]
    predicted = ["B-b", "I-b", "O", "B-b", "B-b", "I-b"]  # the last entity begins a word too early
    matrix, types = type_confusions([expected], [predicted])
    assert types == ["a", "b", "none"]
    assert matrix.tolist() == [[0, 1, 1], [0, 1, 0], [0, 1, 0]]


def test_intervals_are_of_documents_not_of_words() -> None:
    one = [["B-a", "O"], ["O", "B-a"]]
    sure = entity_scores(one * 20, one * 20)["confidence_95"]["micro_f1"]
    assert sure == {"low": 1.0, "high": 1.0}
    # A document is right as a whole or wrong as a whole, so 40 words tell no more than 4 documents.
    right, wrong = ["B-a"] * 10, ["O"] * 10
    unsure = entity_scores([right] * 4, [right, right, right, wrong])["confidence_95"]["accuracy"]
    assert unsure["low"] <= 0.25
    assert unsure["high"] == 1.0
