"""What the tasks share whose answers are pieces of texts: how questions are read, and how well they are answered."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from data_pipeline.shards.prepared import PreparedData
from launcher.runs.run import Run
from launcher.tasks.answer_data import AnswerData, AskedQuestion
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.label_task import LabelTask
from launcher.tasks.sections import AnswersRun
from longformer.evaluation.answers import answer_scores, best_no_answer
from longformer.evaluation.classification import Scores
from longformer.evaluation.lengths import SHORT, scores_by_length
from longformer.evaluation.question_answering import AnswerScore
from longformer.files import write_atomically
from longformer.inference.answering import (
    SPANS_KEPT,
    AnswerReading,
    Span,
    Window,
    WindowSpans,
    context_windows,
    merged,
    probabilities,
    text_of,
    window_spans,
)
from longformer.inference.choosing import Around
from longformer.inference.classification import IDS
from longformer.inference.queries import longest_query
from longformer.models import LongformerForQuestionAnswering
from longformer.training.objectives import ANSWER_SPANS, Objective

Config = TypeVar("Config", bound=AnswersRun)
Data = TypeVar("Data", bound=AnswerData[Any])
Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""Tells of a text where each of its tokens begins and ends, in characters."""


@dataclass(frozen=True)
class Prediction:
    """What is found for a question."""

    text: str
    """Empty where nothing is."""
    start: int
    """Where it begins in its context, in characters."""
    example: int
    """Which of the examples has that context."""
    score: float
    """Its probability beside other pieces and no answer."""
    no_answer: float
    """The probability that there is no answer."""


@dataclass(frozen=True)
class AnswerTask(LabelTask[Config, Data], Generic[Config, Data]):
    """A task whose answers are pieces of texts.

    A question may have several contexts, each an example of its own; the best answer of all counts.
    """

    model_class: ClassVar = LongformerForQuestionAnswering

    @property
    def objective(self) -> Objective:
        return ANSWER_SPANS

    def reading(self, index: int, length: int | None = None) -> AnswerReading:
        section = self.config.data
        return AnswerReading(
            length or self.config.phases[index].sequence_length,
            section.long_documents,
            overlap=section.overlap,
            longest_answer=section.longest_answer,
        )

    @abstractmethod
    def worth(self, prediction: str, answers: Sequence[str]) -> AnswerScore:
        """Returns what a prediction is worth, given the answers of a question."""

    def evaluate(self, model: Any, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns how well questions are answered, beside what is reachable, and the prediction for each.

        Where some validation questions have no answer, they decide from which probability of no answer on none is
        given; the model's config keeps it. After a phase, of longer contexts also the scores of the same model that
        reads them in windows of SHORT tokens.
        """
        asked = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        groups = _by_question(asked)
        answers = {name: asked[examples[0]].answers for name, examples in groups.items()}
        reading = self.reading(index, request.sequence_length)
        found = self._predictions(model, asked, groups, reading, request)
        reading = replace(reading, no_answer_above=self._no_answer_above(model, found, answers, request))

        def worth_of(found: Mapping[str, Prediction]) -> list[AnswerScore]:
            return [self.worth(reading.given(each.text, each.no_answer), answers[name]) for name, each in found.items()]

        worth, has_answer = worth_of(found), [bool(each) for each in answers.values()]
        around, offsets = self.data.around().around_pair, self.data.offsets()
        tokens = [len(each.context_ids) + len(each.question_ids) + around for each in asked]
        lengths = [max(tokens[number] for number in examples) for examples in groups.values()]
        reachable = [
            self._reachable([asked[number] for number in examples], reading, around, offsets)
            for examples in groups.values()
        ]
        scores = answer_scores(worth, has_answer) | {
            "reachable": _without_intervals(answer_scores(reachable, has_answer)),
            "questions": len(groups),
            "longer_contexts": sum(length > reading.length for length in tokens),
            "sequence_length": reading.length,
        }
        if reading.no_answer_above is not None:
            scores["no_answer_above"] = reading.no_answer_above

        def of_group(members: Sequence[int]) -> Scores:
            return answer_scores([worth[number] for number in members], [has_answer[number] for number in members])

        if by_length := scores_by_length(lengths, of_group):
            scores["by_length"] = by_length
        longest = max(len(each.question_ids) for each in asked)
        if request.after_phase and reading.length > SHORT and max(tokens) > SHORT and longest <= longest_query(SHORT):
            short = self._predictions(model, asked, groups, replace(reading, length=SHORT), request)
            scores["windows_of_512_tokens"] = answer_scores(worth_of(short), has_answer)
        table = [
            {
                "id": name,
                "question": asked[examples[0]].question,
                "tokens": length,
                "answers": list(answers[name]),
                "prediction": reading.given(found[name].text, found[name].no_answer),
                "best": found[name].text,
                "start": found[name].start,
                "example": found[name].example,
                "score": found[name].score,
                "no_answer": found[name].no_answer,
                **each._asdict(),
            }
            for (name, examples), length, each in zip(groups.items(), lengths, worth, strict=True)
        ]
        return Evaluation(scores, table, reading.settings)

    def _no_answer_above(
        self,
        model: Any,
        found: Mapping[str, Prediction],
        answers: Mapping[str, Sequence[str]],
        request: EvaluationRequest,
    ) -> float | None:
        """Returns from which probability of no answer on none is given: what validation questions have decided."""
        if request.split != "validation":
            return AnswerReading.no_answer_in(model.config)
        texts = {name: each.text for name, each in found.items()}
        return best_no_answer(answers, texts, {name: each.no_answer for name, each in found.items()})

    def write_table(self, directory: Path, split: str, evaluation: Evaluation) -> Path | None:
        """Writes beside the predictions also what the published evaluation script of the task reads: an object with
        the answer to each question, and one with the probability that there is none."""
        for name, field in ((f"answers-{split}.json", "prediction"), (f"no-answers-{split}.json", "no_answer")):
            content = {line["id"]: line[field] for line in evaluation.table}
            write_atomically(directory / name, json.dumps(content, ensure_ascii=False, indent=1).encode())
        return super().write_table(directory, split, evaluation)

    def report(self, run: Run) -> TaskReport:
        # Plotting takes seconds to import, which ranks need not.
        from launcher.tasks.answer_report import report_of

        return report_of(self.config, self.data, run)

    def _predictions(
        self,
        model: Any,
        asked: Sequence[AskedQuestion],
        groups: Mapping[str, Sequence[int]],
        reading: AnswerReading,
        request: EvaluationRequest,
    ) -> dict[str, Prediction]:
        """Returns what is found for each question."""
        padding = PreparedData.open(self.data.directory).manifest.tokenizer.special_tokens.padding
        around = self.data.around()
        special = Around(around.before, around.between, around.after, around.second_type)
        windows = [
            (number, window)
            for number, each in enumerate(asked)
            for window in context_windows(reading, each.question_ids.tolist(), each.context_ids.tolist(), special)
        ]

        def read(batch: list[tuple[int, Window]], device: torch.device) -> list[WindowSpans]:
            return window_spans(
                model,
                [window for _, window in batch],
                longest=reading.longest_answer,
                padding=padding,
                device=device,
            )

        of_windows = self.read_parts(
            model, windows, read, length=lambda part: len(part[1].inputs[IDS]), request=request
        )
        of_examples: list[list[Span]] = [[] for _ in asked]
        for (number, _), spans in zip(windows, of_windows, strict=True):
            of_examples[number] += spans.beside_none() if self.data.learns_none else spans.spans
        best = [merged(spans, count=SPANS_KEPT) for spans in of_examples]
        offsets = self.data.offsets()
        return {name: _prediction(asked, best, examples, offsets) for name, examples in groups.items()}

    def _reachable(
        self, asked: Sequence[AskedQuestion], reading: AnswerReading, around: int, offsets: Offsets
    ) -> AnswerScore:
        """Returns what the best of the marked places of a question would be worth that are read whole and not too long.

        Args:
            asked: the question with each of its contexts.
            reading: says what is read.
            around: special tokens beside question and context.
            offsets: as of `AnswerData.offsets`.
        """
        texts = {""}
        for each in asked:
            windows = reading.spans(len(each.context_ids), len(each.question_ids) + around)
            places = offsets(each.context) if each.spans else []
            texts |= {
                text_of(each.context, places, first, last)[0]
                for first, last in each.spans
                if last - first < reading.longest_answer
                and any(window.start <= first and last < window.stop for window in windows)
            }
        worth = [self.worth(text, asked[0].answers) for text in texts]
        return AnswerScore(max(each.exact for each in worth), max(each.f1 for each in worth))


def _prediction(
    asked: Sequence[AskedQuestion], best: Sequence[Sequence[Span]], examples: Sequence[int], offsets: Offsets
) -> Prediction:
    """Returns the best of the spans of all contexts of a question, given the numbers of its examples."""
    spans = sorted(((span, number) for number in examples for span in best[number]), reverse=True)[:SPANS_KEPT]
    if not spans:
        return Prediction("", 0, examples[0], 0.0, 1.0)
    none, scores = probabilities([span for span, _ in spans])
    span, number = spans[0]
    context = asked[number].context
    text, start = text_of(context, offsets(context), span.first, span.last)
    return Prediction(text, start, number, scores[0], none)


def _by_question(asked: Sequence[AskedQuestion]) -> dict[str, list[int]]:
    """Returns the numbers of the examples of each question."""
    groups: dict[str, list[int]] = {}
    for number, each in enumerate(asked):
        groups.setdefault(each.identifier, []).append(number)
    return groups


def _without_intervals(scores: Scores) -> Scores:
    return {name: value for name, value in scores.items() if name != "confidence_95"}
