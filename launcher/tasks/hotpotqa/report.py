"""What the report of a finished run on HotpotQA adds: kinds of questions, length, answers and what they rest on."""

from typing import Any

from launcher.reporting.html import Example, Section, Table
from launcher.reporting.label_sections import MISTAKES, length_section, lengths_section, longer_texts, mistakes_section
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.hotpotqa.config import HotpotQARun
from launcher.tasks.hotpotqa.data import HotpotQAData
from longformer.evaluation.question_answering import squad_answer

_SCORES = ("em", "f1", "sp_em", "sp_f1", "joint_em", "joint_f1")
_KINDS = "The test questions; sp: the sentences that answers rest on; reachable: the labels, as far as they are read."


def report_of(config: HotpotQARun, data: HotpotQAData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory or the prepared data is missing or damaged.
    """
    table = run.test_table()
    test = run.evaluations()[-1]["test"]
    answers = [squad_answer(line["prediction"], [line["answer"]]).f1 for line in table]
    facts = [float(sorted(line["facts"]) == sorted(line["supporting_facts"])) for line in table]
    rows = {"all": test, "reachable": test["reachable"], **test["by_kind"]}
    kinds = Table(
        ("questions", *(name.replace("_", " ") for name in _SCORES)),
        tuple((kind, *(f"{scores[name]:.3f}" for name in _SCORES)) for kind, scores in rows.items()),
    )
    wrong = [line for line, answer in zip(table, answers, strict=True) if not answer]
    sections = (
        lengths_section(data.lengths("train")),
        Section("Kinds of questions", _KINDS, (kinds,)),
        length_section(
            test,
            ("joint_f1", "f1", "sp_f1"),
            [line["tokens"] for line in table],
            {"answer F1": answers, "all sentences right": facts},
        ),
        _mistakes(wrong, len(table)),
    )
    return TaskReport(sections=sections, notes=(longer_texts({**test, "texts": len(table)}, "truncate_end"),))


def _mistakes(wrong: list[dict[str, Any]], questions: int) -> Section:
    """Shows the mistakes that the model was surest of, with the sentences that it relied on."""
    surest = sorted(wrong, key=lambda line: -line["score"])[:MISTAKES]
    parts = []
    for line in surest:
        about = f"{line['prediction'] or '(nothing)'} ({line['score']:.3f}), not {line['answer']}"
        relied, gold = (
            ", ".join(f"{title} {number}" for title, number in line[name]) for name in ("facts", "supporting_facts")
        )
        parts.append(Example(((about, line["question"]), ("rests on", relied), ("should rest on", gold))))
    return mistakes_section(parts, f"among {questions:,} test questions")
