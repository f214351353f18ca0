"""What the reports of tasks share that predict labels: baselines, length, right and wrong, the surest mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launcher.reporting.figures import confusion_matrix, length_histogram, reliability_diagram, scores_by_length
from launcher.reporting.html import Figure, Part, Section, Table

MISTAKES = 5
"""So many are shown."""
_MAX_CLASSES = 30
"""So many classes fit into a picture of confusions, or a table."""


def lengths_section(lengths: Sequence[int]) -> Section:
    """Returns how long the training texts are, in tokens."""
    figure = Figure(length_histogram({"training texts": lengths}), "Tokens of the training texts.")
    return Section("Texts", "", (figure,))


def longer_texts(test: Mapping[str, Any], long_documents: str) -> str:
    """Returns the sentence on test texts that are longer than what is read at a time; `long_documents` says how."""
    longer, count, length = (f"{test[name]:,}" for name in ("longer_texts", "texts", "sequence_length"))
    return f"{longer} of {count} test texts are longer than {length} tokens ({long_documents})."


def baselines_section(contenders: Mapping[str, Mapping[str, Any] | None], names: Sequence[str]) -> Section:
    """Sets a model beside others.

    Args:
        contenders: scores of the test texts by who has them; None of those who have none.
        names: of the scores to show.
    """
    shown = {name: scores for name, scores in contenders.items() if scores is not None}
    table = _scores_table("test texts", shown, names)
    return Section("Beside baselines", "In brackets the interval of 95 % confidence.", (table,))


def length_section(
    test: Mapping[str, Any], names: Sequence[str], tokens: Sequence[int], scores: Mapping[str, Sequence[float]]
) -> Section:
    """Returns scores by the length of the test texts.

    Args:
        test: all their scores, with `by_length` where there are groups.
        names: of those to show of each group.
        tokens: of each text.
        scores: by name, one for each text.
    """
    parts: list[Part] = [Figure(scores_by_length(tokens, scores), "Mean, with standard errors.")]
    if groups := test.get("by_length"):
        shown = {f"{name.replace('_', ' ')} ({group['texts']:,})": group for name, group in groups.items()}
        parts.append(_scores_table("length (texts)", shown, names))
    return Section("Does reading more help?", "Test texts in groups of equal number, by their length.", tuple(parts))


def classes_table(per_class: Mapping[str, Mapping[str, float]], name: str) -> Table | None:
    """Returns the scores of every class, called by this name; None where there are too many."""
    if not per_class or len(per_class) > _MAX_CLASSES:
        return None
    headings = (name, *next(iter(per_class.values())))
    rows = [
        (each, *(f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for value in scores.values()))
        for each, scores in per_class.items()
    ]
    return Table(headings, tuple(rows))


def confusions(matrix: np.ndarray, classes: Sequence[str], caption: str) -> Figure | None:
    """Returns the picture of a matrix as `confusion_matrix` takes it; None where there are too many classes."""
    return Figure(confusion_matrix(matrix, classes), caption) if len(classes) <= _MAX_CLASSES else None


def counted_confusions(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> np.ndarray:
    """Returns how often each class was taken for each, (classes, classes) int, given what is and what it was taken
    for."""
    numbers = {name: number for number, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(matrix, tuple(np.array([[numbers[name] for name in pair] for pair in pairs]).T), 1)
    return matrix


def reliability(statements: Sequence[tuple[float, bool]]) -> Figure:
    """Returns the picture of statements of a probability, each with whether it was right."""
    probabilities, right = (np.array(each) for each in zip(*statements, strict=True))
    caption = "Of statements of a probability, how many were right; on the line, probabilities mean what they say."
    return Figure(reliability_diagram(probabilities, right), caption)


def mistakes_section(parts: Sequence[Part], of_what: str) -> Section:
    """Returns the mistakes that the model was surest of, `of_what` such as "among 9 test texts"."""
    text = f"The mistakes {of_what} that the model was surest of." if parts else "There are none."
    return Section("Surest mistakes", text, tuple(parts))


def _scores_table(heading: str, rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Table:
    cells = tuple((row, *(_with_interval(scores, name) for name in names)) for row, scores in rows.items())
    return Table((heading, *(name.replace("_", " ") for name in names)), cells)


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval = scores.get("confidence_95", {}).get(name)
    spread = f" ({interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    return f"{scores[name]:.3f}{spread}"
