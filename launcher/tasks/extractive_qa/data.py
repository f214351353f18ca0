"""The questions of a run, from SQuAD's files or records."""

from dataclasses import dataclass

from data_pipeline.sources.corpora import Corpus
from data_pipeline.sources.questions import questions
from launcher.tasks.answer_data import AnswerData
from launcher.tasks.extractive_qa.config import ExtractiveQARun


@dataclass(frozen=True)
class ExtractiveQAData(AnswerData[ExtractiveQARun]):
    """Questions about texts; see `launcher.tasks.data.TaskData`."""

    def corpus(self) -> Corpus:
        section = self.config.data
        return questions(
            section.source,
            context=section.context,
            question=section.question,
            answers=section.answers,
            identifier=section.identifier,
            encoding=section.encoding,
        )
