"""The task `sequence_classification`: an encoder made long learns to classify whole texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from launcher.tasks.base import Evaluation, EvaluationRequest
from launcher.tasks.pretrained import PretrainedTask
from launcher.tasks.sequence_classification.config import SequenceClassificationRun
from launcher.tasks.sequence_classification.data import SequenceClassificationData
from longformer.evaluation.classification import classification_scores
from longformer.evaluation.distributed import gathered
from longformer.models import LongformerForSequenceClassification

_SHOWN = 500
"""Characters of a text that stand in the table of predictions."""


@dataclass(frozen=True)
class SequenceClassificationTask(PretrainedTask[SequenceClassificationRun, SequenceClassificationData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForSequenceClassification

    @property
    def model_changes(self) -> dict[str, Any]:
        return {"num_labels": len(self.config.data.classes)}

    def build_model(self, index: int, origin: Path | None) -> LongformerForSequenceClassification:
        model: LongformerForSequenceClassification = super().build_model(index, origin)
        names = {str(number): str(name) for number, name in enumerate(self.config.data.classes)}
        numbers = {name: int(number) for number, name in names.items()}
        model.config = model.config.replaced(other={**model.config.other, "id2label": names, "label2id": numbers})
        return model

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns accuracy and macro F1, and the probability of every class for every text."""
        length = request.sequence_length or self.config.phases[index].sequence_length
        texts = self.data.held_out(request.split, length=length, limit=self.config.evaluation.limit_documents)
        batch_size = request.batch_size or self.config.evaluation.batch_size
        padding = self.data.padding

        def classify(batch: Sequence[np.ndarray], device: torch.device) -> list[list[float]]:
            ids = [torch.from_numpy(text).to(device) for text in batch]
            is_token = pad_sequence([torch.ones_like(text) for text in ids], batch_first=True)
            input_ids = pad_sequence(ids, batch_first=True, padding_value=padding)
            return model(input_ids=input_ids, attention_mask=is_token).logits.float().softmax(-1).tolist()

        # Texts of similar length together, whatever the number of ranks.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number].input_ids))
        batches = [
            [texts[number].input_ids for number in order[start : start + batch_size]]
            for start in range(0, len(order), batch_size)
        ]
        probabilities = dict(
            zip(
                order,
                gathered(
                    classify,
                    batches,
                    model,
                    rank=request.rank,
                    world_size=request.world_size,
                    report_progress=request.report_progress,
                ),
                strict=True,
            )
        )
        predicted = [int(np.argmax(probabilities[number])) for number in range(len(texts))]
        classes, decode = list(map(str, self.config.data.classes)), self.data.decoder()
        table = [
            {
                "text": decode(text.input_ids.tolist())[:_SHOWN],
                "label": classes[text.label],
                "prediction": classes[found],
                "scores": dict(zip(classes, probabilities[number], strict=True)),
            }
            for number, (text, found) in enumerate(zip(texts, predicted, strict=True))
        ]
        scores = classification_scores(predicted, [text.label for text in texts])
        return Evaluation({**scores, "texts": len(texts), "sequence_length": length}, table)
