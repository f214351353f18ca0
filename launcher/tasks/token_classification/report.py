"""What the report of finished word labels adds: types and confusions, length, baselines, surest mistakes in context."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from launcher.reporting.html import Example, Part, Section, WeightedText
from launcher.reporting.label_sections import (
    MISTAKES,
    baselines_section,
    classes_table,
    confusions,
    counted_confusions,
    length_section,
    lengths_section,
    mistakes_section,
    reliability,
)
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.token_classification.config import TokenClassificationRun
from launcher.tasks.token_classification.data import TokenClassificationData
from longformer.evaluation.baselines import dictionary_labels
from longformer.evaluation.entities import document_f1, has_entities, type_confusions
from longformer.evaluation.labelled_words import word_scores

_CONTEXT = 25
"""Words on each side of a mistake."""


class Text(NamedTuple):
    """The words of a test text that were read."""

    words: list[str]
    tokens: int
    """Of the whole text."""
    label: list[str]
    prediction: list[str]
    score: list[float]
    """The probability of each prediction."""


def report_of(config: TokenClassificationRun, data: TokenClassificationData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    table = run.test_table()
    texts = [_read_words(line) for line in table]
    test, names = run.evaluations()[-1]["test"], config.words.scores
    dictionary = _dictionary_scores(config, data, table)
    contenders = {
        "this model": test,
        "this model in windows of 512 tokens": test.get("windows_of_512_tokens"),
        "a dictionary of the training texts": dictionary,
    }
    by_entities = has_entities(data.classes())
    right = {"F1": document_f1} if by_entities else {"right": _share_of_right}
    scores = {name: [score(each.label, each.prediction) for each in texts] for name, score in right.items()}
    sections = (
        lengths_section(data.lengths("train")),
        baselines_section(contenders, names),
        length_section(test, names, [each.tokens for each in texts], scores),
        _right_and_wrong(data.classes(), texts, test),
        _mistakes(texts),
    )
    longer, count, length, unread = (
        f"{test[name]:,}" for name in ("longer_texts", "texts", "sequence_length", "unread_words")
    )
    notes = (
        f"{longer} of {count} test texts are longer than {length} tokens ({config.data.long_documents}); "
        f"{unread} words were not read and are not scored.",
        f"A dictionary of the training texts has {dictionary[names[0]]:.3f} {names[0].replace('_', ' ')}.",
    )
    return TaskReport(sections=sections, notes=notes, numbers={"dictionary_baseline": dictionary})


def _read_words(line: dict[str, Any]) -> Text:
    read = [number for number, label in enumerate(line["prediction"]) if label is not None]
    columns = {name: [line[name][number] for number in read] for name in ("words", "label", "prediction", "score")}
    return Text(tokens=line["tokens"], **columns)


def _dictionary_scores(
    config: TokenClassificationRun, data: TokenClassificationData, table: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Returns the scores of a dictionary, of the words that the model has read."""
    classes = data.classes()
    learned, test = data.held_out("train"), data.held_out("test", limit=config.evaluation.limit_documents)
    found = dictionary_labels(
        [text.words for text in learned],
        [[classes[number] for number in text.labels] for text in learned],
        [text.words for text in test],
        classes=classes,
    )
    is_read = [[label is not None for label in line["prediction"]] for line in table]
    certain = [
        np.where(np.array(read)[:, None], np.eye(len(classes))[[classes.index(label) for label in labels]], np.nan)
        for labels, read in zip(found, is_read, strict=True)
    ]
    return word_scores(certain, [text.labels for text in test], classes)


def _share_of_right(expected: Sequence[str], predicted: Sequence[str]) -> float:
    return float(np.mean([label == found for label, found in zip(expected, predicted, strict=True)]))


def _right_and_wrong(classes: Sequence[str], texts: Sequence[Text], test: dict[str, Any]) -> Section:
    """Shows the scores of types or classes, which are taken for which, and whether probabilities mean what they say."""
    expected, predicted = [each.label for each in texts], [each.prediction for each in texts]
    if has_entities(classes):
        about = "Entities of the test texts, which are right where their first word, their last and their type are."
        scores = classes_table(test["per_type"], "type")
        caption = "Rows are what entities are, columns what others with the same first and last word were taken for."
        picture = confusions(*type_confusions(expected, predicted), caption)
    else:
        about = "The words of the test texts."
        scores = classes_table(test["per_class"], "class")
        pairs = list(zip(chain(*expected), chain(*predicted), strict=True))
        caption = "Rows are what words are, columns what they are taken for."
        picture = confusions(counted_confusions(pairs, classes), classes, caption)
    statements = [
        (score, label == found)
        for each in texts
        for score, label, found in zip(each.score, each.label, each.prediction, strict=True)
    ]
    parts = (scores, picture, reliability(statements))
    return Section("Right and wrong", about, tuple(part for part in parts if part is not None))


def _mistakes(texts: Sequence[Text]) -> Section:
    """Shows the mistakes that the model was surest of, words in a row as one, where they stand."""
    found = [(text, start, end) for text in texts for start, end in _wrong_words(text)]
    found.sort(key=lambda mistake: -float(np.mean(mistake[0].score[mistake[1] : mistake[2]])))
    parts: list[Part] = []
    for text, start, end in found[:MISTAKES]:
        sure = float(np.mean(text.score[start:end]))
        about = f"{' '.join(text.label[start:end])}, taken for {' '.join(text.prediction[start:end])} ({sure:.3f})"
        parts.append(Example(((about, " ".join(text.words[start:end])),)))
        first, behind = max(0, start - _CONTEXT), end + _CONTEXT
        pieces = tuple(
            (f"{word} ", float(start <= place < end)) for place, word in enumerate(text.words[first:behind], first)
        )
        parts.append(WeightedText("Where it stands.", pieces))
    return mistakes_section(parts, f"among {sum(len(each.words) for each in texts):,} words of the test texts")


def _wrong_words(text: Text) -> list[tuple[int, int]]:
    """Returns where words with a wrong label in a row begin and end, the end exclusive."""
    wrong = [label != found for label, found in zip(text.label, text.prediction, strict=True)]
    edges = np.flatnonzero(np.diff([False, *wrong, False]))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
