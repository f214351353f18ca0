"""The task `triviaqa`: an encoder made long learns to answer questions from documents that mention the answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.tasks.answer_task import AnswerTask
from launcher.tasks.triviaqa.config import TriviaQARun
from launcher.tasks.triviaqa.data import TriviaQAData
from longformer.evaluation.question_answering import AnswerScore, trivia_answer


@dataclass(frozen=True)
class TriviaQATask(AnswerTask[TriviaQARun, TriviaQAData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    def worth(self, prediction: str, answers: Sequence[str]) -> AnswerScore:
        return trivia_answer(prediction, answers)
