"""What the report of a finished run on WikiHop or MedHop adds: baselines, length, relations, the surest mistakes."""

from typing import Any

from launcher.reporting.html import Example, Section, Table
from launcher.reporting.label_sections import (
    MISTAKES,
    baselines_section,
    length_section,
    lengths_section,
    longer_texts,
    mistakes_section,
    reliability,
)
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.wikihop.config import WikihopRun
from launcher.tasks.wikihop.data import WikihopData


def report_of(config: WikihopRun, data: WikihopData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory or the prepared data is missing or damaged.
    """
    table = run.test_table()
    test = run.evaluations()[-1]["test"]
    right = [line["label"] == line["prediction"] for line in table]
    contenders = {
        "this model": test,
        "this model on the first 512 tokens": test.get("first_512_tokens"),
        **{name.replace("_", " "): {"accuracy": value} for name, value in test["baselines"].items()},
    }
    sure = [(max(line["probabilities"]), is_right) for line, is_right in zip(table, right, strict=True)]
    names, by_text = config.words.scores, {"right": list(map(float, right))}
    relations = Table(
        ("relation", "accuracy", "queries"),
        tuple((name, f"{each['accuracy']:.3f}", f"{each['texts']:,}") for name, each in test["by_relation"].items()),
    )
    sections = (
        lengths_section(data.lengths("train")),
        baselines_section(contenders, names),
        length_section(test, names, [line["tokens"] for line in table], by_text),
        Section("Relations", "Those that most test queries ask for.", (relations,)),
        Section("Right and wrong", "The test queries.", (reliability(sure),)),
        _mistakes([line for line, is_right in zip(table, right, strict=True) if not is_right], len(table)),
    )
    return TaskReport(sections=sections, notes=(longer_texts(test, config.data.long_documents),))


def _mistakes(wrong: list[dict[str, Any]], queries: int) -> Section:
    """Shows the mistakes that the model was surest of."""
    surest = sorted(wrong, key=lambda line: -max(line["probabilities"]))[:MISTAKES]
    parts = []
    for line in surest:
        about = f"{line['label']}, not {line['prediction']} ({max(line['probabilities']):.3f})"
        parts.append(Example(((about, line["query"]), ("candidates", ", ".join(line["candidates"])))))
    return mistakes_section(parts, f"among {queries:,} test queries")
