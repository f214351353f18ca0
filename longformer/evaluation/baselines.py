"""What labels can be predicted without a network: beside it, nobody is fooled by a high score."""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from longformer.evaluation.entities import OUTSIDE, entities, has_entities

Words = Sequence[Hashable]
Tags = tuple[str, ...]
_NO_ENTITY: Tags = ()
"""Stands for the tags of words that are none together."""


def tfidf_predictions(
    texts: Sequence[str], labels: np.ndarray, asked: Sequence[str], *, problem: str, outputs: int
) -> np.ndarray | None:
    """Returns what a linear model of weighted words and pairs of words (TF-IDF) predicts.

    Args:
        texts: to learn from.
        labels: of these texts: (texts,) int of a single label, (texts, classes) of several, (texts,) float of a
            regression.
        asked: the texts to predict.
        problem: single_label, multi_label or regression.
        outputs: number of classes; 1 of a regression.

    Returns:
        (texts asked, outputs) float: probabilities of the classes, or the number; None where no two texts share a word,
        as in languages that write no spaces.
    """
    # They take seconds to import, and only the report asks for them.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=min(2, len(texts)), sublinear_tf=True, max_features=200_000)
    try:
        learned = vectorizer.fit_transform(texts)
    except ValueError:  # no words are left
        return None
    found = vectorizer.transform(asked)
    if problem == "regression":
        return np.asarray(Ridge().fit(learned, labels).predict(found)).reshape(-1, 1)

    def logistic(of_labels: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=10.0, max_iter=1_000).fit(learned, of_labels)

    probabilities = np.zeros((len(asked), outputs))
    if problem == "single_label":
        model = logistic(labels)
        probabilities[:, model.classes_] = model.predict_proba(found)
        return probabilities
    for number in range(outputs):
        # A class that all or none of the texts have needs no model.
        holds = labels[:, number]
        probabilities[:, number] = (
            holds[0] if len(set(holds.tolist())) == 1 else logistic(holds).predict_proba(found)[:, 1]
        )
    return probabilities


def dictionary_labels(
    texts: Sequence[Words], labels: Sequence[Sequence[str]], asked: Sequence[Words], *, classes: Sequence[str]
) -> list[list[str]]:
    """Returns the labels of words that a dictionary of the training texts gives.

    Where the classes are tags of entities, it holds the entities of the training texts, without those that are more
    often none where their words stand there; from the left, the longest that stands at a place is found (the baseline
    of CoNLL-2003 is of this kind). Else it holds the most frequent label of every word, and for other words the most
    frequent one.

    Args:
        texts: the words of each text to learn from.
        labels: of these words.
        asked: the words of each text to label.
        classes: names of all labels.
    """
    if has_entities(classes):
        return _entities_found(_entity_dictionary(texts, labels), asked)
    counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for words, tags in zip(texts, labels, strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    known = {word: _most_frequent(counted) for word, counted in counts.items()}
    default = _most_frequent(Counter(chain.from_iterable(labels)))
    return [[known.get(word, default) for word in words] for words in asked]


def _entity_dictionary(texts: Sequence[Words], labels: Sequence[Sequence[str]]) -> dict[Words, Tags]:
    """Returns the tags of the words of each entity that is in the dictionary."""
    of_texts = [{(entity.start, entity.end) for entity in entities(tags)} for tags in labels]
    counts: dict[Words, Counter[Tags]] = {
        tuple(words[start:end]): Counter() for words, found in zip(texts, of_texts, strict=True) for start, end in found
    }
    lengths = _lengths_by_first(counts)
    for words, tags, found in zip(texts, labels, of_texts, strict=True):
        for start in range(len(words)):
            for span in _known_at(words, start, counts, lengths):
                end = start + len(span)
                counts[span][tuple(tags[start:end]) if (start, end) in found else _NO_ENTITY] += 1
    best = {span: _most_frequent(counted) for span, counted in counts.items()}
    return {span: tags for span, tags in best.items() if tags != _NO_ENTITY}


def _entities_found(dictionary: Mapping[Words, Tags], asked: Sequence[Words]) -> list[list[str]]:
    lengths = _lengths_by_first(dictionary)
    found = []
    for words in asked:
        tags: list[str] = []
        while (start := len(tags)) < len(words):
            longest = next(_known_at(words, start, dictionary, lengths), None)
            tags += (OUTSIDE,) if longest is None else dictionary[longest]
        found.append(tags)
    return found


def _lengths_by_first(known: Collection[Words]) -> dict[Hashable, list[int]]:
    """Returns how many words those have that begin with each word, the longest first."""
    lengths: dict[Hashable, set[int]] = defaultdict(set)
    for span in known:
        lengths[span[0]].add(len(span))
    return {first: sorted(found, reverse=True) for first, found in lengths.items()}


def _known_at(
    words: Words, start: int, known: Collection[Words], lengths: Mapping[Hashable, Sequence[int]]
) -> Iterator[Words]:
    """Yields those of the known sequences of words that stand at a place of a text, the longest first."""
    for length in lengths.get(words[start], ()):
        span = tuple(words[start : start + length])
        if len(span) == length and span in known:
            yield span


def _most_frequent(counted: Counter[Any]) -> Any:
    """Returns what was counted most often, of several the first in order."""
    return min(counted, key=lambda each: (-counted[each], each))


def most_alike(texts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int] | None:
    """Returns which of its choices shares most words with each text, the rarer the more (cosine of TF-IDF).

    None where there are no words, as in languages that write no spaces.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    try:
        vectorizer.fit(chain(texts, *choices))
    except ValueError:  # no words are left
        return None
    alike = (
        (vectorizer.transform(of_text) @ row.T).toarray()
        for of_text, row in zip(choices, vectorizer.transform(texts), strict=True)
    )
    return [int(each.argmax()) for each in alike]
