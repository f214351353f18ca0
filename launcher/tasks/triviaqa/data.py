"""The questions of TriviaQA, an example for each of their documents."""

from dataclasses import dataclass
from typing import ClassVar

from data_pipeline.sources.corpora import Corpus
from data_pipeline.sources.triviaqa import triviaqa
from launcher.tasks.answer_data import AnswerData
from launcher.tasks.triviaqa.config import TriviaQARun


@dataclass(frozen=True)
class TriviaQAData(AnswerData[TriviaQARun]):
    """Questions with documents of evidence; see `launcher.tasks.data.TaskData`."""

    learns_none: ClassVar[bool] = False

    def corpus(self) -> Corpus:
        section = self.config.data
        return triviaqa(section.source, section.domain, max_words=section.max_words)
