"""What the report of a finished choosing adds: baselines, length, calibration, and the surest mistakes."""

from typing import Any

from launcher.reporting.html import Example, Section
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
from launcher.tasks.multiple_choice.config import MultipleChoiceRun
from launcher.tasks.multiple_choice.data import MultipleChoiceData
from longformer.evaluation.baselines import most_alike


def report_of(config: MultipleChoiceRun, data: MultipleChoiceData, run: Run) -> TaskReport:
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
        "most words in common with the text (TF-IDF)": _most_alike(config, data),
    }
    sure = [(max(line["probabilities"]), is_right) for line, is_right in zip(table, right, strict=True)]
    names, by_text = config.words.scores, {"right": list(map(float, right))}
    sections = (
        lengths_section(data.lengths("train")),
        baselines_section(contenders, names),
        length_section(test, names, [line["tokens"] for line in table], by_text),
        Section("Right and wrong", "The test texts.", (reliability(sure),)),
        _mistakes([line for line, is_right in zip(table, right, strict=True) if not is_right], len(table)),
    )
    return TaskReport(sections=sections, notes=(longer_texts(test, config.data.long_documents),))


def _most_alike(config: MultipleChoiceRun, data: MultipleChoiceData) -> dict[str, Any] | None:
    """Returns the test scores of the choices that, with their question, share most words with the text."""
    examples, decode = data.held_out("test", limit=config.evaluation.limit_documents), data.decoder()
    choices = [[decode(choice.tolist()) for choice in example.choices] for example in examples]
    found = most_alike([decode(example.text.tolist()) for example in examples], choices)
    if found is None:
        return None
    right = [place == example.label for place, example in zip(found, examples, strict=True)]
    return {"accuracy": sum(right) / len(right)}


def _mistakes(wrong: list[dict[str, Any]], texts: int) -> Section:
    """Shows the mistakes that the model was surest of."""
    surest = sorted(wrong, key=lambda line: -max(line["probabilities"]))[:MISTAKES]
    parts = []
    for line in surest:
        about = f"{line['label']}, not {line['prediction']} ({max(line['probabilities']):.3f})"
        parts.append(Example(((about, line["question"]), ("text", line["text"]))))
    return mistakes_section(parts, f"among {texts:,} test texts")
