"""The sections of a run file for HotpotQA: an encoder made long, and questions about several paragraphs."""

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from launcher.config.run_config import TaskWords
from launcher.tasks.sections import LabelEvaluationSection, LabelledRun, LabelledSection


class HopsSection(LabelledSection):
    """Which questions are learned, from the files of HotpotQA as they are, or as `datasets` has them."""

    long_documents: Literal["truncate_end"] = "truncate_end"
    """What is read of paragraphs that do not fit: what stands first."""
    selected: Path | None = None
    """The second stage: a finished run of the first, with `evaluation.select_paragraphs`, whose best paragraphs of
    each question are read; `null` = all are."""
    longest_answer: PositiveInt = 20
    """Tokens of the longest answer that is given."""


class HopsEvaluationSection(LabelEvaluationSection):
    """What is evaluated, and what is written for a second stage."""

    select_paragraphs: bool = False
    """Whether after the last phase the training questions are read too, and the best paragraphs of all written, which
    a second run reads with `data.selected`."""


class HotpotQARun(LabelledRun):
    """An encoder made long that learns to answer questions from several paragraphs, and what the answers rest on."""

    task: Literal["hotpotqa"]
    """What is learned: here, to answer questions and to tell the sentences that the answers rest on."""
    data: HopsSection
    """The questions and their paragraphs."""
    evaluation: HopsEvaluationSection = HopsEvaluationSection()
    """How held-out questions are judged after each phase."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_question",
            bits_short="bits/question",
            scores=("joint_f1", "f1", "sp_f1"),
            score_short="joint F1",
            metrics=dict.fromkeys(("joint_f1", "joint_em", "f1", "em", "sp_f1", "sp_em"), "max"),
        )
