"""The task `multiple_choice`: an encoder made long learns which of several choices is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from data_pipeline.sampling.choices import ChoiceExample
from data_pipeline.shards.prepared import PreparedData
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.label_task import LabelTask
from launcher.tasks.multiple_choice.config import MultipleChoiceRun
from launcher.tasks.multiple_choice.data import MultipleChoiceData
from longformer.evaluation.classification import Scores, choice_scores
from longformer.evaluation.lengths import SHORT, scores_by_length
from longformer.inference.choosing import Around, choice_inputs, choice_values
from longformer.inference.classification import IDS, Inputs, Reading
from longformer.models import LongformerForMultipleChoice
from longformer.training.objectives import Lengths, Objective, weighted_labels

_SHOWN = 500
"""Characters of a text that stand in the table of predictions."""


@dataclass(frozen=True)
class MultipleChoiceTask(LabelTask[MultipleChoiceRun, MultipleChoiceData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForMultipleChoice

    @property
    def objective(self) -> Objective:
        return weighted_labels(None)

    def full_lengths(self, index: int) -> list[Lengths]:
        return super().full_lengths(index) * self.data.most_choices()

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns how often the right choice is found, beside chance and the longest choice, and the prediction for
        every example.

        After a phase, of longer texts also the scores of the same model on their first SHORT tokens.
        """
        examples = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        reading = self.reading(index, request.sequence_length)
        around = self._around()
        beside = [around.beside(each.choices) for each in examples]
        lengths = [len(each.text) + more for each, more in zip(examples, beside, strict=True)]
        values = self._values(model, examples, reading, request)
        scores = _scores(values, examples) | {
            "baselines": _baselines(examples),
            "texts": len(examples),
            "longer_texts": sum(length > reading.length for length in lengths),
            "sequence_length": reading.length,
        }

        def of_group(members: Sequence[int]) -> Scores:
            return _scores([values[number] for number in members], [examples[number] for number in members])

        if by_length := scores_by_length(lengths, of_group):
            scores["by_length"] = by_length
        if request.after_phase and reading.length > SHORT and max(lengths) > SHORT > max(beside):
            short = self._values(model, examples, Reading(SHORT), request)
            scores["first_512_tokens"] = _scores(short, examples)
        return Evaluation(scores, self._table(values, examples, lengths))

    def report(self, run: Run) -> TaskReport:
        # Plotting takes seconds to import, which ranks need not.
        from launcher.tasks.multiple_choice.report import report_of

        return report_of(self.config, self.data, run)

    def _around(self) -> Around:
        around = self.data.around()
        return Around(around.before, around.between, around.after, around.second_type)

    def _values(
        self, model: Any, examples: Sequence[ChoiceExample], reading: Reading, request: EvaluationRequest
    ) -> list[np.ndarray]:
        """Returns the probabilities of the choices of every example, (choices,) each."""
        padding = PreparedData.open(self.data.directory).manifest.tokenizer.special_tokens.padding
        around = self._around()
        parts_of_texts = [choice_inputs(reading, each.text.tolist(), each.choices, around) for each in examples]

        def read(parts: list[list[Inputs]], device: torch.device) -> list[list[float]]:
            return choice_values(model, parts, padding=padding, device=device)

        return self.averaged(
            model, parts_of_texts, read, length=lambda part: max(len(each[IDS]) for each in part), request=request
        )

    def _table(
        self, values: Sequence[np.ndarray], examples: Sequence[ChoiceExample], lengths: Sequence[int]
    ) -> list[dict[str, Any]]:
        decode = self.data.decoder()
        return [
            {
                "text": decode(example.text.tolist())[:_SHOWN],
                "tokens": length,
                "question": example.question,
                "choices": list(example.names),
                "label": example.names[example.label],
                "prediction": example.names[int(each.argmax())],
                "probabilities": each.tolist(),
            }
            for each, example, length in zip(values, examples, lengths, strict=True)
        ]


def _scores(values: Sequence[np.ndarray], examples: Sequence[ChoiceExample]) -> Scores:
    return choice_scores(values, [example.label for example in examples])


def _baselines(examples: Sequence[ChoiceExample]) -> Scores:
    """Returns the accuracy of drawing a choice, and of taking the longest."""
    longest = [int(np.argmax([len(choice) for choice in example.choices])) == example.label for example in examples]
    return {
        "random": float(np.mean([1 / len(example.choices) for example in examples])),
        "longest_choice": float(np.mean(longest)),
    }
