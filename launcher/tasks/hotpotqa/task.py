"""The task `hotpotqa`: an encoder made long answers questions from several paragraphs, and tells what they rest on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from data_pipeline.sampling.hops import HopExample
from data_pipeline.shards.prepared import PreparedData
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.hotpotqa.config import HotpotQARun
from launcher.tasks.hotpotqa.data import HotpotQAData
from launcher.tasks.label_task import LabelTask
from longformer.evaluation.classification import Scores
from longformer.evaluation.lengths import scores_by_length
from longformer.evaluation.question_answering import HotpotAnswer, hotpot_scores, squad_answer
from longformer.files import write_json
from longformer.inference.answering import text_of
from longformer.inference.classification import IDS
from longformer.inference.hops import (
    VERDICTS,
    HopAnswer,
    HopInputs,
    HopMarks,
    HopReading,
    hop_answers,
    hop_inputs,
    selected,
)
from longformer.inference.hops import Line as HopLine
from longformer.models import LongformerForMultiHopAnswers
from longformer.training.objectives import HOPS, Objective

Line = dict[str, Any]
Offsets = Callable[[str], Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class HotpotQATask(LabelTask[HotpotQARun, HotpotQAData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForMultiHopAnswers

    @property
    def objective(self) -> Objective:
        return HOPS

    def reading(self, index: int, length: int | None = None) -> HopReading:
        length = length or self.config.phases[index].sequence_length
        return HopReading(length, longest_answer=self.config.data.longest_answer)

    def evaluated_splits(self, index: int) -> list[str]:
        found, is_last = super().evaluated_splits(index), index == len(self.config.phases) - 1
        return [*found, "train"] if is_last and self.config.evaluation.select_paragraphs else found

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns the scores of HotpotQA, also of each kind of question, and what is found for every question."""
        examples = self.data.held_out(request.split, limit=self.config.evaluation.limit_documents)
        reading = self.reading(index, request.sequence_length)
        marks, offsets = HopMarks(*astuple(self.data.marks())), self.data.line_offsets()
        inputs = [hop_inputs(reading, each.question_ids, each.lines, marks) for each in examples]
        found = self._answers(model, inputs, reading, request)
        table = [_line(example, answer, offsets) for example, answer in zip(examples, found, strict=True)]
        lengths = [example.tokens for example in examples]
        kinds = sorted({example.kind for example in examples} - {""})
        scores: Scores = {
            **_scores(table),
            "reachable": _scores(
                [
                    line | _reachable(example, each.lines, reading.longest_answer, offsets)
                    for line, example, each in zip(table, examples, inputs, strict=True)
                ]
            ),
            "questions": len(table),
            "longer_texts": sum(length > reading.length for length in lengths),
            "sequence_length": reading.length,
            "by_kind": {kind: _scores([line for line in table if line["kind"] == kind]) for kind in kinds},
        }

        def of_group(members: Sequence[int]) -> Scores:
            return _scores([table[number] for number in members])

        if by_length := scores_by_length(lengths, of_group):
            scores["by_length"] = by_length
        return Evaluation(scores, table)

    def write_table(self, directory: Path, split: str, evaluation: Evaluation) -> Path | None:
        """Writes beside the table what the published evaluation script reads, and what a second stage does."""
        table = evaluation.table
        submission = {
            "answer": {line["id"]: line["prediction"] for line in table},
            "sp": {line["id"]: line["facts"] for line in table},
        }
        write_json(directory / f"answers-{split}.json", submission)
        write_json(directory / f"paragraphs-{split}.json", {line["id"]: line["paragraphs"] for line in table})
        return super().write_table(directory, split, evaluation)

    def report(self, run: Run) -> TaskReport:
        # Plotting takes seconds to import, which ranks need not.
        from launcher.tasks.hotpotqa.report import report_of

        return report_of(self.config, self.data, run)

    def _answers(
        self, model: Any, inputs: Sequence[HopInputs], reading: HopReading, request: EvaluationRequest
    ) -> list[HopAnswer]:
        padding = PreparedData.open(self.data.directory).manifest.tokenizer.special_tokens.padding

        def read(questions: list[HopInputs], device: torch.device) -> list[HopAnswer]:
            return hop_answers(model, questions, longest=reading.longest_answer, padding=padding, device=device)

        return self.read_parts(model, inputs, read, length=lambda each: len(each.inputs[IDS]), request=request)


def _line(example: HopExample, found: HopAnswer, offsets: Offsets) -> Line:
    titles = [title for title, _ in example.paragraphs]
    prediction = ""
    if found.kind:
        prediction = VERDICTS[found.kind - 1]
    elif found.line is not None:
        text = _text(example, found.line)
        prediction, _ = text_of(text, offsets(text), found.first, found.last)
    return {
        "id": example.identifier,
        "question": example.question,
        "kind": example.kind,
        "tokens": example.tokens,
        "answer": example.answer,
        "prediction": prediction,
        "score": found.score,
        "supporting_facts": [list(fact) for fact in example.facts],
        "facts": [[titles[paragraph], sentence] for paragraph, sentence in found.facts],
        "paragraphs": selected(found.paragraphs),
    }


def _reachable(example: HopExample, lines: Sequence[HopLine], longest: int, offsets: Offsets) -> Line:
    """Returns what would be predicted of a question by its labels, as far as they are in the lines that are read.

    Args:
        example: the question.
        lines: those that are read.
        longest: tokens of the longest piece that is given.
        offsets: as of `HotpotQAData.line_offsets`.
    """
    names = [(example.paragraphs[line.paragraph].title, line.sentence) for line in lines]
    facts = [list(fact) for fact in example.facts if fact in names]
    if example.answer in VERDICTS:
        return {"prediction": example.answer, "facts": facts}
    texts = [""]
    token = 0
    for line in lines:
        text = _text(example, line)
        texts += [
            text_of(text, offsets(text), first - token, last - token)[0]
            for first, last in example.spans
            if token <= first <= last < min(token + line.tokens, first + longest)
        ]
        token += line.tokens
    best = max(texts, key=lambda text: squad_answer(text, [example.answer]))
    return {"prediction": best, "facts": facts}


def _text(example: HopExample, line: HopLine) -> str:
    title, sentences = example.paragraphs[line.paragraph]
    return (title, *sentences)[line.sentence + 1]


def _scores(table: Sequence[Mapping[str, Any]]) -> Scores:
    gold = {line["id"]: HotpotAnswer(line["answer"], [(*fact,) for fact in line["supporting_facts"]]) for line in table}
    answers = {line["id"]: line["prediction"] for line in table}
    return hotpot_scores(gold, answers, {line["id"]: [(*fact,) for fact in line["facts"]] for line in table})
