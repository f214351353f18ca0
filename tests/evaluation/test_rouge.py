"""ROUGE is Google's, intervals are honest, and extracts are what they say."""

import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.summaries import DOCUMENT, summaries
from longformer.evaluation.rouge import (
    METRICS,
    by_length,
    lead,
    mean_with_interval,
    oracle,
    rouge,
)
from longformer.evaluation.words import TextUnits, text_units

WORDS = ["the", "cells", "cell", "bind", "binding", "binds", "receptor", "receptors", "a", "of"]
texts = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), min_size=1, max_size=4).map(
    lambda parts: "\n".join(" ".join(part) for part in parts)
)


@settings(max_examples=60)
@given(prediction=texts, references=st.lists(texts, min_size=1, max_size=3))
def test_scores_are_those_of_the_package_on_lines_and_the_best_reference_counts(
    prediction: str, references: list[str]
) -> None:
    found = rouge(prediction, references)
    for ending, stemmed in (("", False), ("_stemmed", True)):
        scorer = RougeScorer(METRICS, use_stemmer=stemmed)
        scores = [scorer.score(reference, prediction) for reference in references]
        for metric in METRICS:
            assert found[metric + ending] == max(each[metric].fmeasure for each in scores)


def test_known_values_by_hand() -> None:
    found = rouge("The cells bind. A receptor.", ["the cell binds a receptor"])
    assert found["rouge1"] == pytest.approx(3 / 5), "the, a, receptor of five words"
    assert found["rouge1_stemmed"] == 1
    assert found["rouge2_stemmed"] == 1
    assert rouge("", ["a reference"])["rouge1"] == 0


def test_without_line_ends_the_whole_and_the_sum_over_sentences_are_the_same_only_for_one_sentence() -> None:
    reference = "cells bind the receptor. a receptor binds"
    swapped = "a receptor binds. cells bind the receptor"
    found = rouge(swapped, [reference])
    assert found["rougeLsum"] == 1
    assert found["rougeL"] < 1


def test_sentences_end_at_marks_and_lines_and_none_is_lost(test_data: Path) -> None:
    assert TextUnits().sentences("One. Two!  Three?\nfour 4.5 five\n\n") == ["One.", "Two!", "Three?", "four 4.5 five"]
    corpus = summaries(test_data / "sumpubmed", "sumpubmed")
    sample = next(corpus.read(DocumentReader(corpus.files), Quarantine(0)))
    assert " ".join(TextUnits().sentences(str(sample.texts[DOCUMENT]))).split() == str(sample.texts[DOCUMENT]).split()


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        found = mean_with_interval(draw.exponential(size=60).tolist(), resamples=200, seed=trial)
        assert found.low <= found.mean <= found.high
        held += found.low <= 1 <= found.high
    assert 0.87 <= held / 200 <= 0.99
    assert mean_with_interval([0.1, 0.4]) == mean_with_interval([0.1, 0.4]), "the same for the same values"


def test_the_lead_is_whole_sentences_that_reach_the_words_asked_for() -> None:
    document = "one two three. four five six.\nseven eight."
    assert lead(document, words=3) == "one two three."
    assert lead(document, words=4) == "one two three.\nfour five six."
    assert lead(document, words=100) == "one two three.\nfour five six.\nseven eight."


@settings(max_examples=10)
@given(seed=st.integers(0, 2_500), references=st.integers(1, 2))
@example(seed=501, references=1)
@example(seed=1566, references=1)
@example(seed=1793, references=2)
def test_no_single_sentence_beats_the_oracle_and_few_sets_of_sentences_do(seed: int, references: int) -> None:
    draw = random.Random(seed)
    document = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(4)]
    wanted = [" ".join(draw.choices(WORDS, k=8)) for _ in range(references)]

    def score(extract: str) -> float:
        return max(sum(rouge(extract, [one])[metric] for metric in ("rouge1", "rouge2")) for one in wanted)

    found = oracle("\n".join(document), wanted)
    sets = [list(chosen) for size in (1, 2, 3, 4) for chosen in combinations(document, size)]
    assert score_within(found.split("\n"), wanted) >= max(score_within([one], wanted) for one in document) - 1e-9
    # It takes the best sentence at each turn: of all these seeds the lowest is 0.71 of the best set (1566).
    assert score_within(found.split("\n"), wanted) >= max(score_within(chosen, wanted) for chosen in sets) * 0.7
    # Pairs of words across the border of two sentences count for rouge, not for the search: 0.62 (1793).
    every = [score("\n".join(chosen)) for chosen in sets]
    assert score(found) >= max(every[:4]) * 0.85
    assert score(found) >= max(every) * 0.6


def score_within(chosen: list[str], wanted: list[str]) -> float:
    """Return rouge1 + rouge2 of the best reference, of groups of words that lie within one sentence."""

    def groups(sentence: str, size: int) -> Counter[tuple[str, ...]]:
        words = sentence.split()
        return Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))

    def f_score(one: str, size: int) -> float:
        said, asked = sum((groups(sentence, size) for sentence in chosen), Counter()), groups(one, size)
        return 2 * (said & asked).total() / (said.total() + asked.total())

    return max(f_score(one, 1) + f_score(one, 2) for one in wanted)


def test_a_sentence_of_the_reference_is_found_by_the_oracle() -> None:
    document = "nothing of it here. cells bind the receptor. nor here either."
    assert oracle(document, ["another thing", "cells bind the receptor"]) == "cells bind the receptor."


def test_documents_are_counted_once_in_the_narrowest_range_of_lengths() -> None:
    found = by_length([10, 1_024, 1_025, 5_000], [0.1, 0.3, 0.5, 0.7])
    assert found == {"up to 1024": (2, 0.2), "up to 2048": (1, 0.5), "up to 8192": (1, 0.7)}


@pytest.mark.parametrize(
    ("language", "text", "sentences_of_it"),
    [
        ("hi", "अदालत ने कहा कि यह सही है। सरकार ने अपील की और मामला खत्म हुआ।", 2),
        ("zh", "法院说这个案件已经结束。政府提出了上诉。", 2),
        ("ja", "裁判所は事件が終わったと言った。政府は控訴した。", 2),
        ("ru", "Суд сказал, что дело закончено. Правительство подало жалобу.", 2),
        ("de", "Der Richter sagte z.B. über Dr. Müller, daß er für schöne Häuser sei. Er ging dann nach Köln.", 2),
        ("ar", "قالت المحكمة إن القضية انتهت. قدمت الحكومة استئنافا.", 2),
    ],
)
def test_texts_of_all_languages_are_counted_and_the_choice_is_told(
    language: str, text: str, sentences_of_it: int
) -> None:
    units = text_units([text] * 3)
    assert (units.tokenizer, units.language) == ("unicode", language)
    assert set(rouge(text, [text], units).values()) == {1.0}
    assert len(units.sentences(text)) == sentences_of_it
    assert oracle(text, [text], units).replace("\n", "").replace(" ", "") == text.replace(" ", "")
    first = units.sentences(text)[0]
    assert lead(text, words=len(units.words(first)), units=units) == first
    assert 0 < rouge(first, [text], units)["rouge1"] < 1


def test_other_letters_are_other_words_and_english_stays_comparable_with_published_figures() -> None:
    assert rouge("für", ["fär"], TextUnits("unicode"))["rouge1"] == 0
    assert rouge("F\u0075\u0308r", ["für"], TextUnits("unicode"))["rouge1"] == 1
    english = "The naïve court said that the café is closed, and that the case of the two owners had ended on Monday."
    assert text_units([english]).tokenizer == "default"
    by_pieces = text_units([english], "model", lambda text: [ord(each) for each in text])
    assert rouge("abc", ["abd"], by_pieces)["rouge1"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"tokenizer default finds no word in 1 of 2 references.* choose unicode"):
        text_units([english, "法院说是。"], "default")
