"""What the report of a finished run on coreference adds: official scores, baselines, length, and clusters in colour."""

from collections.abc import Sequence
from typing import Any

from launcher.reporting.html import MentionsText, Section, Table
from launcher.reporting.label_sections import baselines_section, length_section, lengths_section, longer_texts
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.coreference.config import CoreferenceRun
from launcher.tasks.coreference.data import CoreferenceData

_SHOWN_DOCUMENTS, _SHOWN_WORDS = 3, 400
_METRICS = {
    "mention": "mentions",
    "muc": "MUC",
    "b3": "B³",
    "ceafm": "CEAF of mentions",
    "ceafe": "CEAF of entities",
    "blanc": "BLANC",
    "lea": "LEA",
}

Mentions = Sequence[Sequence[Sequence[int]]]
"""Clusters of mentions, each the numbers of its first and its last word."""


def report_of(config: CoreferenceRun, data: CoreferenceData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory or the prepared data is missing or damaged.
    """
    table = run.test_table()
    test = run.evaluations()[-1]["test"]
    contenders = {
        "this model": test,
        "this model, whose encoder reads segments of 512 tokens": test.get("segments_of_512_tokens"),
        **{name.replace("_", " "): scores for name, scores in test["baselines"].items()},
    }
    names = config.words.scores
    official = Table(
        ("metric", "recall", "precision", "F1"),
        tuple(
            (shown, *(f"{test[f'{name}_{part}']:.3f}" for part in ("recall", "precision", "f1")))
            for name, shown in _METRICS.items()
        ),
    )
    sections = (
        lengths_section(data.lengths("train")),
        Section("Scores", "As the official scorer of CoNLL-2012 counts them, of all test documents.", (official,)),
        baselines_section(contenders, names),
        length_section(
            test, names, [line["tokens"] for line in table], {"CoNLL F1": [line["score"] for line in table]}
        ),
        Section(
            "Clusters",
            f"The first {_SHOWN_WORDS} words of test documents; mentions of one thing have one number and one colour.",
            tuple(part for line in table[:_SHOWN_DOCUMENTS] for part in _documents(line)),
        ),
    )
    return TaskReport(sections=sections, notes=(longer_texts(test, config.data.long_documents),))


def _documents(line: dict[str, Any]) -> list[MentionsText]:
    return [
        MentionsText(f"{line['document']}, {about}", mention_pieces(line["words"][:_SHOWN_WORDS], line[name]))
        for about, name in (("as found", "prediction"), ("as annotated", "label"))
    ]


def mention_pieces(words: Sequence[str], clusters: Mentions) -> tuple[str | int | None, ...]:
    """Returns words with their mentions, as `MentionsText` takes them, but what crosses a mention before it."""
    starts: dict[int, list[tuple[int, int]]] = {}
    for cluster, mentions in enumerate(clusters):
        for first, last in mentions:
            starts.setdefault(first, []).append((last, cluster))
    pieces: list[str | int | None] = []
    ends: list[int] = []
    for place, word in enumerate(words):
        for last, cluster in sorted(starts.get(place, ()), reverse=True):  # the longest is outside
            if last < len(words) and (not ends or last <= ends[-1]):
                ends.append(last)
                pieces.append(cluster)
        pieces.append(word)
        while ends and ends[-1] == place:
            ends.pop()
            pieces.append(None)
        pieces.append(" ")
    return tuple(pieces)
