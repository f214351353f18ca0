"""What the report of a finished classification adds: confusions, calibration, length, baselines, surest mistakes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data_pipeline.shards.prepared import PreparedData
from launcher.reporting.html import Example, Part, Section, WeightedText
from launcher.reporting.label_sections import (
    MISTAKES,
    baselines_section,
    classes_table,
    confusions,
    counted_confusions,
    length_section,
    lengths_section,
    longer_texts,
    mistakes_section,
    reliability,
)
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.sequence_classification.config import SequenceClassificationRun
from launcher.tasks.sequence_classification.data import LabelledText, SequenceClassificationData
from longformer.evaluation.baselines import tfidf_predictions
from longformer.evaluation.classification import THRESHOLD, label_scores
from longformer.inference.attention_maps import first_token_attention
from longformer.inference.classification import IDS, TextReading
from longformer.models import LongformerForSequenceClassification

_SMALL = 20_000
"""Training texts of which a baseline of words is made in about a minute."""
_SHOWN = 1_024
"""Tokens of a text on which attention is shown."""

Line = dict[str, Any]


def report_of(config: SequenceClassificationRun, data: SequenceClassificationData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    result = run.newest_result()
    table = run.test_table()
    test = run.evaluations()[-1]["test"]
    texts = data.held_out("test", limit=config.evaluation.limit_documents)
    baseline = _words_baseline(config, data, texts)
    contenders = {
        "this model": test,
        "this model on the first 512 tokens": test.get("first_512_tokens"),
        "TF-IDF and a linear model": baseline,
    }
    if config.data.problem == "regression":
        by_text = {"absolute error": [abs(line["label"] - line["prediction"]) for line in table]}
    else:
        by_text = {"right": [float(line["label"] == line["prediction"]) for line in table]}
    names = config.words.scores
    sections = [
        lengths_section(data.lengths("train")),
        baselines_section(contenders, names),
        length_section(test, names, [line["tokens"] for line in table], by_text),
    ]
    if config.data.problem != "regression":
        sections.append(_right_and_wrong(config, data, table, test))
    if config.data.problem == "single_label":
        model = LongformerForSequenceClassification.from_pretrained(result / "model")
        sections.append(_mistakes(config, data, table, texts, model))
    notes = [longer_texts(test, config.data.long_documents)]
    if cut := test.get("longer_questions"):
        count = f"{test['texts']:,}"
        notes.append(f"{cut:,} of {count} test questions are longer than half of that: their end is left out.")
    numbers: dict[str, Any] = {}
    if baseline is not None:
        best = config.words.scores[0]
        notes.append(f"A linear model of words (TF-IDF) has {baseline[best]:.3f} {best.replace('_', ' ')}.")
        numbers["tfidf_baseline"] = baseline
    return TaskReport(sections=tuple(sections), notes=tuple(notes), numbers=numbers)


def _words_baseline(
    config: SequenceClassificationRun, data: SequenceClassificationData, test: Sequence[LabelledText]
) -> dict[str, Any] | None:
    """Returns the test scores of a linear model of words; None where there are too many texts, or no words."""
    split = PreparedData.open(data.directory).manifest.splits["train"]
    if sum(shard.examples for shard in split) > _SMALL:
        return None
    decode, train = data.decoder(), data.held_out("train")
    values = tfidf_predictions(
        [_words(text, decode) for text in train],
        np.array([text.label for text in train]),
        [_words(text, decode) for text in test],
        problem=config.data.problem,
        outputs=max(1, len(data.classes())),
    )
    if values is None:
        return None
    return label_scores(config.data.problem, values, np.array([text.label for text in test]), data.classes())


def _words(text: LabelledText, decode: Callable[[Iterable[int]], str]) -> str:
    return f"{decode(text.question)} {decode(text.text)}"


def _right_and_wrong(
    config: SequenceClassificationRun, data: SequenceClassificationData, table: Sequence[Line], test: dict[str, Any]
) -> Section:
    """Shows the scores of classes, which are taken for which, and whether probabilities mean what they say."""
    classes, about = data.classes(), "The test texts."
    parts: list[Part | None] = [classes_table(test["per_class"], "class")]
    if config.data.problem == "single_label":
        pairs = [(line["label"], line["prediction"]) for line in table]
        caption = "Rows are what texts are, columns what they are taken for."
        parts.append(confusions(counted_confusions(pairs, classes), classes, caption))
        sure = [(max(line["scores"].values()), line["label"] == line["prediction"]) for line in table]
    else:
        about = f"The test texts; a class holds from a probability of {THRESHOLD}."
        sure = [(value, name in line["label"]) for line in table for name, value in line["scores"].items()]
    parts.append(reliability(sure))
    return Section("Right and wrong", about, tuple(part for part in parts if part is not None))


def _mistakes(
    config: SequenceClassificationRun,
    data: SequenceClassificationData,
    table: Sequence[Line],
    texts: Sequence[LabelledText],
    model: LongformerForSequenceClassification,
) -> Section:
    """Shows the mistakes that the model was surest of, and what its first token looks at there."""
    wrong = [number for number, line in enumerate(table) if line["label"] != line["prediction"]]
    wrong.sort(key=lambda number: -max(table[number]["scores"].values()))
    prepared = PreparedData.open(data.directory)
    pieces = prepared.tokenizer.pieces
    reading = TextReading.of(model.config, config.phases[-1].sequence_length)
    reading = replace(reading, length=min(reading.length, _SHOWN))
    inputs = data.inputs(reading.length)
    parts: list[Part] = []
    for number in wrong[:MISTAKES]:
        line, shown = table[number], texts[number]
        span = reading.spans(len(shown.text), inputs.beside(len(shown.question)))[0]
        read = inputs.of(shown.text[span], shown.question)
        weights = first_token_attention(model, read)
        # What stands first and last gets much attention and says nothing.
        weights[[0, -1]] = 0
        shades = (weights / weights.max()).tolist()
        about = f"{line['label']}, taken for {line['prediction']} ({line['scores'][line['prediction']]:.3f})"
        parts.append(Example(((about, line["text"]),)))
        caption = "What the first token attends to in the last layer (darkest: most)."
        parts.append(WeightedText(caption, tuple(zip(pieces(read[IDS]), shades, strict=True))))
    return mistakes_section(parts, f"among {len(table):,} test texts")
