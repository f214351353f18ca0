"""The task `sequence_classification`: an encoder made long learns the class, the classes or a number of whole texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from data_pipeline.shards.prepared import PreparedData
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.label_task import ClassesTask
from launcher.tasks.sequence_classification.config import SequenceClassificationRun
from launcher.tasks.sequence_classification.data import LabelledText, SequenceClassificationData
from longformer.evaluation.classification import THRESHOLD, Scores, label_scores, without_classes
from longformer.evaluation.lengths import SHORT, scores_by_length
from longformer.inference.classification import IDS, Inputs, Reading, TextReading, label_values
from longformer.models import LongformerForSequenceClassification

_SHOWN = 500
"""Characters of a text that stand in the table of predictions."""


@dataclass(frozen=True)
class SequenceClassificationTask(ClassesTask[SequenceClassificationRun, SequenceClassificationData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForSequenceClassification

    @property
    def model_changes(self) -> dict[str, Any]:
        return super().model_changes | {"problem_type": self._problem_type}

    @property
    def outputs(self) -> Sequence[str]:
        return super().outputs or (str(self.config.data.label),)  # a regression has no classes

    @property
    def _problem_type(self) -> str:
        """The name in config.json of Hugging Face's layout."""
        problem = self.config.data.problem
        return problem if problem == "regression" else f"{problem}_classification"

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns scores (see `longformer.evaluation.classification`), and the prediction for every text.

        After a phase, of longer texts also the scores of the same model on their first SHORT tokens.
        """
        texts = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        reading = self.reading(index, request.sequence_length)
        values = self._values(model, texts, reading, request)
        scores = self._scores(values, texts)
        inputs, lengths = self.data.inputs(reading.length), [text.tokens for text in texts]
        beyond = sum(len(text.text) + inputs.beside(len(text.question)) > reading.length for text in texts)
        scores |= {"texts": len(texts), "longer_texts": beyond, "sequence_length": reading.length}
        if reading.question:
            scores["longer_questions"] = sum(len(text.question) > inputs.question_length for text in texts)
        if by_length := scores_by_length(
            lengths, lambda members: self._scores(values[members], [texts[number] for number in members])
        ):
            scores["by_length"] = by_length
        if request.after_phase and reading.length > SHORT and max(lengths) > SHORT:
            beginning = replace(reading, length=SHORT, long_documents="truncate_end")
            short = self._values(model, texts, beginning, request)
            scores["first_512_tokens"] = without_classes(self._scores(short, texts))
        return Evaluation(scores, self._table(values, texts))

    def report(self, run: Run) -> TaskReport:
        # Plotting takes seconds to import, which ranks need not.
        from launcher.tasks.sequence_classification.report import report_of

        return report_of(self.config, self.data, run)

    def reading(self, index: int, length: int | None = None) -> TextReading:
        read, section = super().reading(index, length), self.config.data
        return TextReading(read.length, read.long_documents, section.global_tokens, section.question is not None)

    def _values(
        self, model: Any, texts: Sequence[LabelledText], reading: Reading, request: EvaluationRequest
    ) -> np.ndarray:
        """Returns the probabilities of the classes, or the numbers, of every text: (texts, outputs)."""
        padding = PreparedData.open(self.data.directory).manifest.tokenizer.special_tokens.padding
        inputs = self.data.inputs(reading.length)
        parts_of_texts: list[list[Inputs]] = [
            [
                inputs.of(text.text[span], text.question)
                for span in reading.spans(len(text.text), inputs.beside(len(text.question)))
            ]
            for text in texts
        ]

        def read(parts: list[Inputs], device: torch.device) -> list[list[float]]:
            values = label_values(model, parts, problem_type=self._problem_type, padding=padding, device=device)
            return values.tolist()

        return np.array(self.averaged(model, parts_of_texts, read, length=lambda part: len(part[IDS]), request=request))

    def _scores(self, values: np.ndarray, texts: Sequence[LabelledText]) -> Scores:
        expected = np.array([text.label for text in texts])
        return label_scores(self.config.data.problem, values, expected, self.data.classes())

    def _table(self, values: np.ndarray, texts: Sequence[LabelledText]) -> list[dict[str, Any]]:
        classes, decode = self.data.classes(), self.data.decoder()
        table = []
        for text, each in zip(texts, values.tolist(), strict=True):
            line: dict[str, Any] = {"text": decode(text.text)[:_SHOWN], "tokens": text.tokens}
            if len(text.question):
                line = {"question": decode(text.question), **line}
            match self.config.data.problem:
                case "regression":
                    line |= {"label": float(text.label), "prediction": each[0]}
                case "multi_label":
                    line["label"] = [name for name, holds in zip(classes, text.label, strict=True) if holds]
                    line["prediction"] = [name for name, value in zip(classes, each, strict=True) if value >= THRESHOLD]
                case _:
                    line |= {"label": classes[int(text.label)], "prediction": classes[int(np.argmax(each))]}
            if classes:
                line["scores"] = dict(zip(classes, each, strict=True))
            table.append(line)
        return table
