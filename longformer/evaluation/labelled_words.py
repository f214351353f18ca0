"""How well the words of documents are labelled: by entities where the labels tell of some, else word by word."""

from collections.abc import Sequence

import numpy as np

from longformer.evaluation.classification import Scores, single_label_scores
from longformer.evaluation.entities import entity_scores, has_entities


def word_scores(probabilities: Sequence[np.ndarray], expected: Sequence[np.ndarray], classes: Sequence[str]) -> Scores:
    """Returns `entity_scores` where the classes are tags of entities, else `single_label_scores` of the words.

    Args:
        probabilities: of every document (words, classes) float; NaN of words that were not read, which do not count.
        expected: of every document (words,) int, the number of the class of each.
        classes: their names.

    Raises:
        ValueError: no word was read.
    """
    is_read = [~np.isnan(each).any(1) for each in probabilities]
    if not any(each.any() for each in is_read):
        raise ValueError("there is no word to score")
    found = [each[read] for each, read in zip(probabilities, is_read, strict=True)]
    wanted = [each[read] for each, read in zip(expected, is_read, strict=True)]
    if has_entities(classes):
        predicted = [each.argmax(1) for each in found]
        return entity_scores(*([[classes[label] for label in each] for each in part] for part in (wanted, predicted)))
    return single_label_scores(
        np.concatenate(found),
        np.concatenate(wanted),
        classes,
        documents=np.repeat(np.arange(len(wanted)), [len(each) for each in wanted]),
    )
