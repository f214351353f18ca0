"""Claims about the dictionary beside which labels of words are set: what it holds and finds, as counted by hand."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from longformer.evaluation.baselines import dictionary_labels
from longformer.evaluation.entities import entities

TAGS = ("O", "B-a", "I-a", "B-b", "I-b")
TEXTS = st.lists(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(TAGS)), max_size=9), min_size=1, max_size=4)


def brute_force(texts: list[list[tuple[str, str]]], asked: list[str]) -> list[str]:
    """Reads every sequence of words everywhere in the training texts."""
    readings: dict[tuple[str, ...], Counter[tuple[str, ...]]] = {}
    for text in texts:
        words, tags = [word for word, _ in text], [tag for _, tag in text]
        bounds = [(entity.start, entity.end) for entity in entities(tags)]
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                reading = tuple(tags[start:end]) if (start, end) in bounds else ()
                readings.setdefault(tuple(words[start:end]), Counter())[reading] += 1
    found: list[str] = []
    while len(found) < len(asked):
        for end in range(len(asked), len(found), -1):
            counted = readings.get(tuple(asked[len(found) : end]), Counter({(): 1}))
            if best := sorted(counted, key=lambda reading: (-counted[reading], reading))[0]:
                found += best
                break
        else:
            found.append("O")
    return found


@settings(max_examples=100)
@given(TEXTS, st.lists(st.sampled_from("xyzw"), max_size=9))
def test_the_longest_known_entity_is_found(texts: list[list[tuple[str, str]]], asked: list[str]) -> None:
    words, tags = ([[pair[part] for pair in text] for text in texts] for part in (0, 1))
    assert dictionary_labels(words, tags, [asked], classes=TAGS) == [brute_force(texts, asked)]


def test_other_labels_are_the_most_frequent_of_the_word_and_of_all_words() -> None:
    learned = [["the", "run", "run"], ["run", "the"]]
    labels = [["DET", "NOUN", "VERB"], ["NOUN", "DET"]]
    found = dictionary_labels(learned, labels, [["run", "the", "new"], []], classes=("DET", "NOUN", "VERB"))
    assert found == [["NOUN", "DET", "DET"], []]
