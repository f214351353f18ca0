"""The task `extractive_qa`: an encoder made long learns to find the answer to a question in a long text."""

from dataclasses import dataclass
from typing import ClassVar

from launcher.tasks.answer_task import AnswerTask
from launcher.tasks.extractive_qa.config import ExtractiveQARun
from launcher.tasks.extractive_qa.data import ExtractiveQAData
from longformer.evaluation.question_answering import squad2_answer


@dataclass(frozen=True)
class ExtractiveQATask(AnswerTask[ExtractiveQARun, ExtractiveQAData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    worth: ClassVar = staticmethod(squad2_answer)
