"""The sections of a run file for choosing between answers: an encoder made long, and texts with choices."""

from typing import Literal, Self

from pydantic import model_validator

from data_pipeline.sources.choices import LabelAs
from launcher.config.run_config import TaskWords
from launcher.tasks.sections import LabelledRun, LabelledSection


class ChoicesSection(LabelledSection):
    """Which texts with choices are learned, from records with named fields."""

    context: str | None = "context"
    """Field that holds the text that is asked about, which may be long; `null` = there is none, only a question."""
    question: str | None = "question"
    """Field that holds the question; `null` = there is none: the choice that fits the context is asked for."""
    choices: str | tuple[str, ...] = "choices"
    """Field that holds the list of choices; or several fields, each of which holds one."""
    label: str = "label"
    """Field that says which choice is right."""
    label_as: LabelAs | None = None
    """How it says so: by the `text` of the choice, by a `letter` (A is the first), or by a number, where 0 is the first
    (`number_from_0`) or 1 is (`number_from_1`); `null` = by text or letter, whichever it is. A number is never
    guessed, and a label that may mean two choices is refused."""
    long_documents: Literal["truncate_end", "truncate_begin", "windows"] = "truncate_end"
    """What is read of contexts that do not fit beside question and choice: the beginning (`truncate_end`), the end
    (`truncate_begin`), or `windows`: training shows another window of each context in every epoch, and evaluation and
    prediction average the probabilities of all. Question and choice are always read whole."""

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.context is None and self.question is None:
            raise ValueError("context and question are both null: name the field of one at least")
        if isinstance(self.choices, tuple) and (len(self.choices) < 2 or len(set(self.choices)) < len(self.choices)):
            raise ValueError(f"choices is {list(self.choices)}, but it should be one field or several different ones")
        return self


class MultipleChoiceRun(LabelledRun):
    """An encoder made long that learns to choose between answers to questions about long texts."""

    task: Literal["multiple_choice"]
    """What is learned: here, to choose between answers."""
    data: ChoicesSection
    """The texts and their choices."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_label",
            bits_short="bits/label",
            scores=("accuracy",),
            score_short="accuracy",
            metrics={"accuracy": "max", "ece": "min"},
        )
