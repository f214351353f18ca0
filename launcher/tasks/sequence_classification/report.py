"""What the report of a finished classification adds: confusions, calibration, length, baselines, surest mistakes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from data_pipeline.shards.prepared import PreparedData
from launcher.reporting.figures import confusion_matrix, length_histogram, reliability_diagram, scores_by_length
from launcher.reporting.html import Example, Figure, Part, Section, Table, WeightedText
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.sequence_classification.config import SequenceClassificationRun
from launcher.tasks.sequence_classification.data import LabelledText, SequenceClassificationData
from longformer.evaluation.baselines import tfidf_predictions
from longformer.evaluation.classification import THRESHOLD, label_scores
from longformer.inference.attention_maps import first_token_attention
from longformer.inference.classification import Reading
from longformer.models import LongformerForSequenceClassification

_SMALL = 20_000
"""Training texts of which a baseline of words is made in about a minute."""
_MISTAKES = 5
_SHOWN = 1_024
"""Tokens of a text on which attention is shown."""
_MAX_CLASSES = 30
"""So many classes fit into a picture of confusions."""

Line = dict[str, Any]


def report_of(config: SequenceClassificationRun, data: SequenceClassificationData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    result = run.newest_result()
    written = (result / "predictions-test.jsonl").read_text(encoding="utf-8").splitlines()
    table = [json.loads(line) for line in written]
    test = run.evaluations()[-1]["test"]
    texts = data.held_out("test", limit=config.evaluation.limit_documents)
    baseline = _words_baseline(config, data, texts)
    sections = [_lengths(data), _beside(config, test, baseline), _by_length(config, table)]
    if config.data.problem != "regression":
        sections.append(_right_and_wrong(config, data, table))
    if config.data.problem == "single_label":
        model = LongformerForSequenceClassification.from_pretrained(result / "model")
        sections.append(_mistakes(data, table, texts, model))
    longer, count, length = (f"{test[name]:,}" for name in ("longer_texts", "texts", "sequence_length"))
    notes = [f"{longer} of {count} test texts are longer than {length} tokens ({config.data.long_documents})."]
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
        [decode(text.text) for text in train],
        np.array([text.label for text in train]),
        [decode(text.text) for text in test],
        problem=config.data.problem,
        outputs=max(1, len(data.classes())),
    )
    if values is None:
        return None
    return label_scores(config.data.problem, values, np.array([text.label for text in test]), data.classes())


def _lengths(data: SequenceClassificationData) -> Section:
    lengths = {"training texts": data.lengths("train")}
    return Section("Texts", "", (Figure(length_histogram(lengths), "Tokens of the training texts."),))


def _beside(config: SequenceClassificationRun, test: dict[str, Any], baseline: dict[str, Any] | None) -> Section:
    """Sets the model beside itself on the first 512 tokens, and beside a linear model of words."""
    contenders = {
        "this model": test,
        "this model on the first 512 tokens": test.get("first_512_tokens"),
        "TF-IDF and a linear model": baseline,
    }
    names = [name for name in config.words.scores if name in test]
    rows = [
        (contender, *(_with_interval(scores, name) for name in names))
        for contender, scores in contenders.items()
        if scores is not None
    ]
    table = Table(("test texts", *(name.replace("_", " ") for name in names)), tuple(rows))
    return Section("Beside baselines", "In brackets the interval of 95 % confidence.", (table,))


def _with_interval(scores: dict[str, Any], name: str) -> str:
    interval = scores.get("confidence_95", {}).get(name)
    spread = f" ({interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    return f"{scores[name]:.3f}{spread}"


def _by_length(config: SequenceClassificationRun, table: Sequence[Line]) -> Section:
    if config.data.problem == "regression":
        scores = {"absolute error": [abs(line["label"] - line["prediction"]) for line in table]}
    else:
        scores = {"right": [float(line["label"] == line["prediction"]) for line in table]}
    figure = Figure(scores_by_length([line["tokens"] for line in table], scores), "Mean, with standard errors.")
    return Section("Does reading more help?", "Test texts in groups of equal number, by their length.", (figure,))


def _right_and_wrong(
    config: SequenceClassificationRun, data: SequenceClassificationData, table: Sequence[Line]
) -> Section:
    """Shows which classes are taken for which, and whether probabilities mean what they say."""
    classes, about = data.classes(), "The test texts."
    parts: list[Part] = []
    if config.data.problem == "single_label":
        if len(classes) <= _MAX_CLASSES:
            numbers = {name: number for number, name in enumerate(classes)}
            matrix = np.zeros((len(classes), len(classes)), dtype=int)
            for line in table:
                matrix[numbers[line["label"]], numbers[line["prediction"]]] += 1
            caption = "Rows are what texts are, columns what they are taken for."
            parts.append(Figure(confusion_matrix(matrix, classes), caption))
        sure = [(max(line["scores"].values()), line["label"] == line["prediction"]) for line in table]
    else:
        about = f"The test texts; a class holds from a probability of {THRESHOLD}."
        sure = [(value, name in line["label"]) for line in table for name, value in line["scores"].items()]
    probabilities, right = np.array([each for each, _ in sure]), np.array([each for _, each in sure])
    caption = "Of statements of a probability, how many were right; on the line, probabilities mean what they say."
    parts.append(Figure(reliability_diagram(probabilities, right), caption))
    return Section("Right and wrong", about, tuple(parts))


def _mistakes(
    data: SequenceClassificationData,
    table: Sequence[Line],
    texts: Sequence[LabelledText],
    model: LongformerForSequenceClassification,
) -> Section:
    """Shows the mistakes that the model was surest of, and what its first token looks at there."""
    wrong = [number for number, line in enumerate(table) if line["label"] != line["prediction"]]
    wrong.sort(key=lambda number: -max(table[number]["scores"].values()))
    prepared = PreparedData.open(data.directory)
    special, pieces = prepared.manifest.tokenizer.special_tokens, prepared.tokenizer.pieces
    reading = Reading.of(model.config, _SHOWN)
    parts: list[Part] = []
    for number in wrong[:_MISTAKES]:
        line = table[number]
        shown = replace(reading, length=min(reading.length, _SHOWN)).parts(texts[number].text)[0]
        ids = [special.begin, *shown, special.end]
        weights = first_token_attention(model, torch.tensor(ids))
        # What stands first and last gets much attention and says nothing.
        weights[[0, -1]] = 0
        shades = (weights / weights.max()).tolist()
        about = f"{line['label']}, taken for {line['prediction']} ({line['scores'][line['prediction']]:.3f})"
        parts.append(Example(((about, line["text"]),)))
        caption = "What the first token attends to in the last layer (darkest: most)."
        parts.append(WeightedText(caption, tuple(zip(pieces(ids), shades, strict=True))))
    text = f"The mistakes among {len(table):,} test texts that the model was surest of." if wrong else "There are none."
    return Section("Surest mistakes", text, tuple(parts))
