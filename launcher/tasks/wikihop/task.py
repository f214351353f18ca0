"""The task `wikihop`: an encoder made long selects answers among candidates (semantics.md 7)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from data_pipeline.sampling.candidates import CandidateExample
from data_pipeline.shards.prepared import PreparedData
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.label_task import LabelTask
from launcher.tasks.wikihop.config import WikihopRun
from launcher.tasks.wikihop.data import WikihopData, relation_of
from longformer.evaluation.classification import Scores, choice_scores
from longformer.evaluation.lengths import SHORT, scores_by_length
from longformer.files import write_json
from longformer.inference.selecting import CandidateReading, Marks, candidate_inputs, candidate_values
from longformer.models import LongformerForCandidateSelection
from longformer.training.objectives import Lengths, Objective, weighted_labels

_RELATIONS = 10
"""Those of most queries have scores of their own."""


@dataclass(frozen=True)
class WikihopTask(LabelTask[WikihopRun, WikihopData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForCandidateSelection

    @property
    def objective(self) -> Objective:
        return weighted_labels(None)

    def reading(self, index: int, length: int | None = None) -> CandidateReading:
        section = self.config.data
        length = length or self.config.phases[index].sequence_length
        return CandidateReading(length, section.long_documents, section.window_scores)

    def full_lengths(self, index: int) -> list[Lengths]:
        return super().full_lengths(index) * self.data.most_windows(index)

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns how often the right candidate is found, also of the most frequent relations alone, and the prediction
        for every query; unless the phase goes on, beside `baselines`.

        After a phase, of longer examples also the scores of the same model on their first SHORT tokens.
        """
        examples = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        reading = self.reading(index, request.sequence_length)
        lengths = [example.tokens for example in examples]
        values = self._values(model, examples, reading, request)
        scores = _scores(values, examples) | {
            "texts": len(examples),
            "longer_texts": sum(length > reading.length for length in lengths),
            "sequence_length": reading.length,
            "by_relation": _by_relation(values, examples),
        }
        if not request.within_phase:
            scores["baselines"] = _baselines(examples, self.data.answers())

        def of_group(members: Sequence[int]) -> Scores:
            return _scores([values[number] for number in members], [examples[number] for number in members])

        if by_length := scores_by_length(lengths, of_group):
            scores["by_length"] = by_length
        if request.after_phase and reading.length > SHORT and max(lengths) > SHORT > max(e.before for e in examples):
            short = self._values(
                model, examples, replace(reading, length=SHORT, long_documents="truncate_end"), request
            )
            scores["first_512_tokens"] = _scores(short, examples)
        return Evaluation(scores, self._table(values, examples, lengths))

    def write_table(self, directory: Path, split: str, evaluation: Evaluation) -> Path | None:
        """Writes beside the table what the benchmark takes as a submission: the answer of every query by its id."""
        answers = {line["id"]: line["prediction"] for line in evaluation.table}
        write_json(directory / f"submission-{split}.json", answers)
        return super().write_table(directory, split, evaluation)

    def report(self, run: Run) -> TaskReport:
        # Plotting takes seconds to import, which ranks need not.
        from launcher.tasks.wikihop.report import report_of

        return report_of(self.config, self.data, run)

    def _values(
        self, model: Any, examples: Sequence[CandidateExample], reading: CandidateReading, request: EvaluationRequest
    ) -> list[np.ndarray]:
        """Returns the probabilities of the candidates of every example, (candidates,) each."""
        padding = PreparedData.open(self.data.directory).manifest.tokenizer.special_tokens.padding
        marks = Marks(*astuple(self.data.marks()))

        def read(part: list[CandidateExample], device: torch.device) -> list[list[float]]:
            inputs = [
                candidate_inputs(reading, each.query, each.candidates, each.supports, marks=marks, padding=padding)
                for each in part
            ]
            return candidate_values(model, inputs, padding=padding, device=device)

        found = self.read_parts(model, examples, read, length=lambda example: example.tokens, request=request)
        return [np.array(each) for each in found]

    def _table(
        self, values: Sequence[np.ndarray], examples: Sequence[CandidateExample], lengths: Sequence[int]
    ) -> list[dict[str, Any]]:
        return [
            {
                "id": example.identifier,
                "tokens": length,
                "query": example.question,
                "candidates": list(example.names),
                "label": example.names[example.label],
                "prediction": example.names[int(each.argmax())],
                "probabilities": each.tolist(),
            }
            for each, example, length in zip(values, examples, lengths, strict=True)
        ]


def _scores(values: Sequence[np.ndarray], examples: Sequence[CandidateExample]) -> Scores:
    return choice_scores(values, [example.label for example in examples])


def _by_relation(values: Sequence[np.ndarray], examples: Sequence[CandidateExample]) -> Scores:
    """Returns the accuracy of the queries for each of the relations of which there are most."""
    relations = [relation_of(example.question) for example in examples]
    is_right = [int(each.argmax()) == example.label for each, example in zip(values, examples, strict=True)]
    right = Counter(relation for relation, is_found in zip(relations, is_right, strict=True) if is_found)
    return {
        relation: {"accuracy": right[relation] / count, "texts": count}
        for relation, count in Counter(relations).most_common(_RELATIONS)
    }


def _baselines(examples: Sequence[CandidateExample], answers: Counter[tuple[str, str]]) -> Scores:
    """Returns the accuracy of drawing a candidate; of taking the one that the relation has most often as its answer in
    training; and of the one that the documents name most often. Of equal ones the first is taken (Welbl et al. 2018).

    Args:
        examples: are answered.
        answers: how often every relation has every answer in training.
    """
    frequent = [
        int(np.argmax([answers[relation_of(example.question), name] for name in example.names])) == example.label
        for example in examples
    ]
    mentioned = [int(np.argmax(example.mentions)) == example.label for example in examples]
    return {
        "random": float(np.mean([1 / len(example.names) for example in examples])),
        "most_frequent_candidate": float(np.mean(frequent)),
        "most_mentioned_candidate": float(np.mean(mentioned)),
    }
