"""The task `extractive_qa`: an encoder made long learns to find the answer to a question in a long text."""

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.tasks.answer_task import AnswerTask
from launcher.tasks.extractive_qa.config import ExtractiveQARun
from launcher.tasks.extractive_qa.data import ExtractiveQAData
from longformer.evaluation.question_answering import AnswerScore, squad2_answer


@dataclass(frozen=True)
class ExtractiveQATask(AnswerTask[ExtractiveQARun, ExtractiveQAData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    def worth(self, prediction: str, answers: Sequence[str]) -> AnswerScore:
        return squad2_answer(prediction, answers)
