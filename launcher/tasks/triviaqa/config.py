"""The sections of a run file for TriviaQA: an encoder made long, and documents of evidence (Longformer paper)."""

from typing import Literal

from pydantic import PositiveInt

from data_pipeline.sources.triviaqa import Domain
from launcher.tasks.sections import AnswersRun, AnswersSection


class TriviaQASection(AnswersSection):
    """Which questions of TriviaQA are learned; `source` is the folder with `qa` and `evidence`."""

    domain: Domain = "wikipedia"
    """Whose documents: in `wikipedia` the best answer in all documents of a question counts, on the `web` each document
    is judged, as the published evaluation does."""
    max_words: PositiveInt = 4096
    """Words of a document that are read at most, from its beginning."""
    long_documents: Literal["windows", "truncate_end"] = "truncate_end"
    """What is read of documents that do not fit beside their question: the beginning (`truncate_end`), as the paper
    does, or `windows`, of which the best answer of all counts and training shows another one in every epoch."""


class TriviaQARun(AnswersRun):
    """An encoder made long that learns to answer the questions of TriviaQA."""

    task: Literal["triviaqa"]
    """What is learned: here, to answer questions from documents in which an alias of the answer stands somewhere."""
    data: TriviaQASection
    """The questions and their documents."""
