"""The sections of a run file for answering questions: an encoder made long, and contexts with marked answers."""

from typing import Literal, Self

from pydantic import model_validator

from launcher.tasks.sections import AnswersRun, AnswersSection


class QuestionsSection(AnswersSection):
    """Which questions are learned: SQuAD's files, or records with named fields."""

    context: str = "context"
    """Of records, the field with the text that holds the answer: a string, or a list of strings; or the way to it
    through objects and lists, such as `paragraphs.text`. Files in SQuAD's layout need no names."""
    question: str = "question"
    """Field with the question."""
    answers: str | tuple[str, ...] = "answers"
    """Field with the answers, or several: a text, a list of texts, objects with `text` and `answer_start`, or an object
    with a list of each. An empty list says that the context has none."""
    identifier: str | None = "id"
    """Field that names a question, by which predictions are written; `null` = where the record stands is its name."""

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        answers = (self.answers,) if isinstance(self.answers, str) else self.answers
        named = [self.context, self.question, *answers, self.identifier]
        if not answers or len(set(named)) < len(named):
            raise ValueError(f"context, question, answers and identifier name {named}, but should be different fields")
        return self


class ExtractiveQARun(AnswersRun):
    """An encoder made long that learns to find the answer to a question in a long text."""

    task: Literal["extractive_qa"]
    """What is learned: here, to answer questions by pieces of their texts."""
    data: QuestionsSection
    """The questions, their texts and their answers."""
