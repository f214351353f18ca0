"""The task `token_classification`: an encoder made long learns the label of every word."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from data_pipeline.shards.prepared import PreparedData
from launcher.tasks.base import Evaluation, EvaluationRequest
from launcher.tasks.label_task import ClassesTask
from launcher.tasks.token_classification.config import TokenClassificationRun
from launcher.tasks.token_classification.data import TaggedText, TokenClassificationData
from longformer.errors import LongformerError
from longformer.evaluation.classification import Scores, single_label_scores
from longformer.evaluation.distributed import gathered
from longformer.evaluation.entities import entity_scores, has_entities
from longformer.inference.classification import Reading, batches_by_length
from longformer.inference.labelling import Part, word_parts, word_values
from longformer.models import LongformerForTokenClassification

UNREAD = -1
"""Stands for the class of a word that is not read."""


@dataclass(frozen=True)
class TokenClassificationTask(ClassesTask[TokenClassificationRun, TokenClassificationData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForTokenClassification

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns scores of entities where the labels tell of some (see `longformer.evaluation.entities`), else of the
        classes of words, and the prediction for every word. What is not read is not scored, but counted."""
        texts = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        reading = self.reading(index, request.sequence_length)
        values = self._values(model, texts, reading, request)
        predicted = [np.where(np.isnan(each[:, 0]), UNREAD, each.argmax(1)) for each in values]
        scores = self._scores(values, predicted, texts) | {
            "texts": len(texts),
            "longer_texts": sum(len(text.text) + 2 > reading.length for text in texts),
            "words": sum(len(text.labels) for text in texts),
            "unread_words": int(sum((each == UNREAD).sum() for each in predicted)),
            "sequence_length": reading.length,
        }
        return Evaluation(scores, self._table(predicted, texts))

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
        batch_size = request.batch_size or self.config.evaluation.batch_size
        batches = batches_by_length(parts, batch_size, length=lambda part: len(part[1].ids))

        def predict(batch: list[tuple[int, Part]], device: torch.device) -> list[tuple[int, np.ndarray, np.ndarray]]:
            values = word_values(model, [part for _, part in batch], padding=special.padding, device=device)
            return [
                (number, part.words, each.cpu().numpy())
                for (number, part), each in zip(batch, values, strict=True)
            ]  # fmt: skip

        found = [np.full((len(text.labels), len(self.data.classes())), np.nan) for text in texts]
        for number, words, values in gathered(
            predict,
            batches,
            model,
            rank=request.rank,
            world_size=request.world_size,
            report_progress=request.report_progress,
        ):
            found[number][words] = values
        return found

    def _scores(
        self, values: Sequence[np.ndarray], predicted: Sequence[np.ndarray], texts: Sequence[TaggedText]
    ) -> Scores:
        classes = self.data.classes()
        read = [each != UNREAD for each in predicted]
        if not any(each.any() for each in read):
            raise LongformerError("none of the held-out words is read: use longer sequences, or windows")
        wanted = [text.labels[is_read] for text, is_read in zip(texts, read, strict=True)]
        if has_entities(classes):
            found = [each[is_read] for each, is_read in zip(predicted, read, strict=True)]
            return entity_scores(*([[classes[label] for label in each] for each in part] for part in (wanted, found)))
        return single_label_scores(
            np.concatenate([each[is_read] for each, is_read in zip(values, read, strict=True)]),
            np.concatenate(wanted),
            classes,
            documents=np.repeat(np.arange(len(texts)), [len(each) for each in wanted]),
        )

    def _table(self, predicted: Sequence[np.ndarray], texts: Sequence[TaggedText]) -> list[dict[str, Any]]:
        names, decode = dict(enumerate(self.data.classes())), self.data.decoder()
        table = []
        for text, each in zip(texts, predicted, strict=True):
            ends = [*text.firsts[1:], len(text.text)]
            table.append({
                "words": [decode(text.text[start:end]).strip() for start, end in zip(text.firsts, ends, strict=True)],
                "label": [names[label] for label in text.labels.tolist()],
                "prediction": [names.get(label) for label in each.tolist()],
            })  # fmt: skip
        return table
