"""The task `token_classification`: an encoder made long learns the label of every word."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from data_pipeline.shards.prepared import PreparedData
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.label_task import ClassesTask
from launcher.tasks.token_classification.config import TokenClassificationRun
from launcher.tasks.token_classification.data import TaggedText, TokenClassificationData
from longformer.errors import LongformerError
from longformer.evaluation.classification import Scores, without_classes
from longformer.evaluation.labelled_words import word_scores
from longformer.evaluation.lengths import SHORT, scores_by_length
from longformer.inference.classification import Reading
from longformer.inference.labelling import Part, word_parts, word_values
from longformer.models import LongformerForTokenClassification
from longformer.training.objectives import Lengths


@dataclass(frozen=True)
class TokenClassificationTask(ClassesTask[TokenClassificationRun, TokenClassificationData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForTokenClassification
    global_tokens: ClassVar[int] = 0

    def predictions(self, lengths: Lengths) -> float:
        return lengths.read

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns scores of entities where the labels tell of some (see `longformer.evaluation.entities`), else of the
        classes of words, and the prediction for every word. What is not read is not scored, but counted.

        After a phase, of longer texts also the scores of the same model that reads them in windows of SHORT tokens: so
        the same words are scored, of which the first SHORT tokens alone would lack most.
        """
        texts = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        reading = self.reading(index, request.sequence_length)
        values = self._values(model, texts, reading, request)
        is_read = [~np.isnan(each).any(1) for each in values]
        if not any(each.any() for each in is_read):
            raise LongformerError("none of the held-out words is read: use longer sequences, or windows")
        scores = self._scores(values, texts)
        lengths = [len(text.text) + 2 for text in texts]
        scores |= {
            "texts": len(texts),
            "longer_texts": sum(length > reading.length for length in lengths),
            "words": sum(len(each) for each in is_read),
            "unread_words": int(sum((~each).sum() for each in is_read)),
            "sequence_length": reading.length,
        }
        scored = [number for number, each in enumerate(is_read) if each.any()]

        def of_group(members: Sequence[int]) -> Scores:
            numbers = [scored[member] for member in members]
            found = self._scores([values[number] for number in numbers], [texts[number] for number in numbers])
            return {**found, "words": int(sum(is_read[number].sum() for number in numbers))}

        if by_length := scores_by_length([lengths[number] for number in scored], of_group):
            scores["by_length"] = by_length
        if request.after_phase and reading.length > SHORT and max(lengths) > SHORT:
            short = self._values(model, texts, Reading(SHORT, "windows"), request)
            same = [np.where(read[:, None], each, np.nan) for read, each in zip(is_read, short, strict=True)]
            scores["windows_of_512_tokens"] = without_classes(self._scores(same, texts))
        return Evaluation(scores, self._table(values, texts))

    def report(self, run: Run) -> TaskReport:
        # Plotting takes seconds to import, which ranks need not.
        from launcher.tasks.token_classification.report import report_of

        return report_of(self.config, self.data, run)

    def _values(
        self, model: Any, texts: Sequence[TaggedText], reading: Reading, request: EvaluationRequest
    ) -> list[np.ndarray]:
        """Returns the probabilities of the classes of the words of every text, (words, classes), NaN of unread ones."""
        special = PreparedData.open(self.data.directory).manifest.tokenizer.special_tokens
        parts = [
            (number, part)
            for number, text in enumerate(texts)
            for part in word_parts(reading, text.text, text.firsts, before=[special.begin], after=[special.end])
        ]

        def read(batch: list[tuple[int, Part]], device: torch.device) -> list[np.ndarray]:
            values = word_values(model, [part for _, part in batch], padding=special.padding, device=device)
            return [each.cpu().numpy() for each in values]

        found = [np.full((len(text.labels), len(self.data.classes())), np.nan) for text in texts]
        of_parts = self.read_parts(model, parts, read, length=lambda part: len(part[1].ids), request=request)
        for (number, part), values in zip(parts, of_parts, strict=True):
            found[number][part.words] = values
        return found

    def _scores(self, values: Sequence[np.ndarray], texts: Sequence[TaggedText]) -> Scores:
        return word_scores(values, [text.labels for text in texts], self.data.classes())

    def _table(self, values: Sequence[np.ndarray], texts: Sequence[TaggedText]) -> list[dict[str, Any]]:
        classes, decode = self.data.classes(), self.data.decoder()
        table = []
        for text, each in zip(texts, values, strict=True):
            is_read = ~np.isnan(each).any(1)
            best = zip(is_read.tolist(), each.argmax(1).tolist(), each.max(1).tolist(), strict=True)
            predicted = [(classes[label], round(score, 4)) if read else (None, None) for read, label, score in best]
            table.append({
                "words": [decode(list(word)).strip() for word in text.words],
                "tokens": len(text.text) + 2,
                "label": [classes[label] for label in text.labels.tolist()],
                "prediction": [label for label, _ in predicted],
                "score": [score for _, score in predicted],
            })  # fmt: skip
        return table
