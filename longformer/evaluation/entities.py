"""How well entities are found in words with tags such as B-PER, I-PER and O; the scores are those of seqeval's default
mode, which reads tags that no scheme allows as conlleval does."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from longformer.evaluation.classification import Scores, f1_parts, with_confidence

OUTSIDE = "O"
NONE = "none"
"""Stands for the type of an entity that is not there."""
_TAG = re.compile(r"[BIES](-.*)?")


class Entity(NamedTuple):
    """Words that belong together."""

    start: int
    end: int
    """Of its words, the end exclusive."""
    type: str


def has_entities(classes: Collection[str]) -> bool:
    """Returns whether labels are tags of entities: O, and others that begin with B-, I-, E- or S-."""
    others = [name for name in classes if name != OUTSIDE]
    return OUTSIDE in classes and bool(others) and all(map(_TAG.fullmatch, others))


def entities(tags: Sequence[str]) -> list[Entity]:
    """Returns the entities of a text by the tags of its words.

    An entity goes on where I or E follows B or I of the same type, and begins wherever else a tag is not O: an I behind
    an O, or of another type, begins one.
    """
    found = []
    start, before = 0, OUTSIDE
    for place, tag in enumerate([*tags, OUTSIDE]):
        if before[0] in "BI" and tag[0] in "IE" and _type(before) == _type(tag):
            before = tag
            continue
        if before != OUTSIDE:
            found.append(Entity(start, place, _type(before)))
        start, before = place, tag
    return found


def entity_scores(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Returns how well entities are found: one counts where its first word, its last and its type are right.

    Args:
        expected: the tags of the words of every document.
        predicted: as many, as `has_entities` allows.

    Returns:
        micro_ and macro_ precision, recall and f1 (macro: the mean over the types that occur or are predicted; 0 where
        nothing is found or wanted), accuracy of the tags; `confidence_95` with low and high of each, of a bootstrap
        over the documents; `per_type` with precision, recall, f1 and entities.

    Raises:
        ValueError: there are no words.
    """
    wanted, found = ([set(entities(tags)) for tags in each] for each in (expected, predicted))
    words = np.array([len(tags) for tags in expected])
    if not words.sum():
        raise ValueError("there is no word to score")
    right_words = np.array([sum(map(str.__eq__, *pair)) for pair in zip(expected, predicted, strict=True)])
    types = sorted({entity.type for each in (*wanted, *found) for entity in each})

    def counts(documents: Sequence[Collection[Entity]]) -> np.ndarray:
        """Returns how many entities of each type each document has: (documents, types)."""
        counted = np.zeros((len(documents), len(types)))
        for number, document in enumerate(documents):
            for entity in document:
                counted[number, types.index(entity.type)] += 1
        return counted

    of_documents = [
        counts([first & second for first, second in zip(found, wanted, strict=True)]),
        counts(found),
        counts(wanted),
    ]

    def scores(weights: np.ndarray) -> dict[str, float]:
        hits, all_found, all_wanted = (weights @ each for each in of_documents)
        micro = f1_parts(hits.sum(), all_found.sum(), all_wanted.sum())
        by_type = f1_parts(hits, all_found, all_wanted)
        occurring = max(1, np.count_nonzero(all_found + all_wanted))
        return {
            **{f"micro_{name}": float(value) for name, value in micro.items()},
            **{f"macro_{name}": float(value.sum() / occurring) for name, value in by_type.items()},
            "accuracy": float(weights @ right_words) / max(1.0, float(weights @ words)),
        }

    hits, all_found, all_wanted = (each.sum(0) for each in of_documents)
    by_type = f1_parts(hits, all_found, all_wanted)
    per_type = {
        name: {
            **{part: float(value[number]) for part, value in by_type.items()},
            "entities": int(all_wanted[number]),
        }
        for number, name in enumerate(types)
    }
    return {**with_confidence(scores, len(words), len(words) * max(1, len(types))), "per_type": per_type}


def type_confusions(
    expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> tuple[np.ndarray, list[str]]:
    """Returns how often entities of each type were taken for each, and the types; the last one is NONE.

    Args:
        expected, predicted: as in `entity_scores`.

    Returns:
        (types, types) int, by what an entity is and what one with the same first and last word was taken for.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for each in zip(expected, predicted, strict=True):
        wanted, found = ({entity[:2]: entity.type for entity in entities(tags)} for tags in each)
        pairs.update((wanted.get(place, NONE), found.get(place, NONE)) for place in {*wanted, *found})
    types = [*sorted({name for pair in pairs for name in pair} - {NONE}), NONE]
    matrix = [[pairs[wanted, found] for found in types] for wanted in types]
    return np.array(matrix), types


def document_f1(expected: Sequence[str], predicted: Sequence[str]) -> float:
    """Returns the F1 of the entities of a document, given its tags; 1 where there are none and none are found."""
    wanted, found = (set(entities(tags)) for tags in (expected, predicted))
    return 2 * len(wanted & found) / (len(wanted) + len(found)) if wanted or found else 1.0


def _type(tag: str) -> str:
    """Returns what stands behind the first hyphen; "_" where nothing does."""
    return tag[2:] or "_"
