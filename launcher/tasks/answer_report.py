"""What the reports of tasks share whose answers are pieces of texts: length, kinds of questions, answers in context."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from launcher.reporting.html import Example, Part, Section, Table, WeightedText
from launcher.reporting.label_sections import (
    MISTAKES,
    baselines_section,
    length_section,
    lengths_section,
    mistakes_section,
    reliability,
)
from launcher.runs.run import Run
from launcher.tasks.answer_data import AnswerData, AskedQuestion
from launcher.tasks.base import TaskReport
from launcher.tasks.sections import AnswersRun

Line = dict[str, Any]
_CONTEXT = 200
"""Characters on each side of an answer that are shown."""
_KINDS = re.compile(r"\b(who|whom|whose|what|which|when|where|why|how many|how much|how)\b", re.IGNORECASE)


def report_of(config: AnswersRun, data: AnswerData[Any], run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory or the prepared data is missing or damaged.
    """
    table: list[Line] = run.test_table()
    asked = data.held_out("test", limit=config.evaluation.limit_documents)
    test, names = run.evaluations()[-1]["test"], config.words.scores
    contenders = {
        "this model": test,
        "this model in windows of 512 tokens": test.get("windows_of_512_tokens"),
        "reachable with what is read": test["reachable"],
    }
    scores = {"F1": [line["f1"] for line in table]}
    wrong = sorted((line for line in table if not line["f1"]), key=lambda line: -_surety(line))
    sections = (
        lengths_section(data.lengths("train")),
        baselines_section(contenders, names),
        length_section(test, names, [line["tokens"] for line in table], scores),
        Section("Kinds of questions", "By the first word of its kind in the question, in English.", (_kinds(table),)),
        Section("Right and wrong", "The test questions.", (reliability(_statements(table)),)),
        mistakes_section(_shown(wrong[:MISTAKES], asked), f"among {len(table):,} test questions"),
    )
    longer, length = (f"{test[name]:,}" for name in ("longer_contexts", "sequence_length"))
    note = f"{longer} test contexts are longer than {length} tokens ({config.data.long_documents})."
    return TaskReport(sections=sections, notes=(note,))


def kind_of(question: str) -> str:
    """Returns the first question word of an English question, else `other`."""
    found = _KINDS.search(question)
    return found[0].lower() if found else "other"


def _kinds(table: Sequence[Line]) -> Table:
    groups: dict[str, list[Line]] = {}
    for line in table:
        groups.setdefault(kind_of(line["question"]), []).append(line)
    rows = tuple(
        (kind, f"{len(lines):,}", *(f"{np.mean([line[name] for line in lines]):.3f}" for name in ("f1", "exact")))
        for kind, lines in sorted(groups.items(), key=lambda group: -len(group[1]))
    )
    return Table(("kind", "questions", "f1", "exact"), rows)


def _surety(line: Line) -> float:
    return float(line["score"] if line["prediction"] else line["no_answer"])


def _statements(table: Sequence[Line]) -> list[tuple[float, bool]]:
    return [(_surety(line), bool(line["exact"])) for line in table]


def _shown(lines: Sequence[Line], asked: Sequence[AskedQuestion]) -> list[Part]:
    """Shows questions with what was found, in its context."""
    parts: list[Part] = []
    for line in lines:
        wanted = " | ".join(line["answers"]) or "(no answer)"
        about = f"{line['prediction'] or '(no answer)'} ({_surety(line):.3f}), not {wanted}"
        parts.append(Example(((about, line["question"]),)))
        context, start = asked[line["example"]].context, line["start"]
        end = start + len(line["best"])
        before, behind = context[max(0, start - _CONTEXT) : start], context[end : end + _CONTEXT]
        parts.append(WeightedText("Where it stands.", ((before, 0.0), (context[start:end], 1.0), (behind, 0.0))))
    return parts
