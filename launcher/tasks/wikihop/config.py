"""The sections of a run file for WikiHop and MedHop: an encoder made long, and queries about many documents."""

from pathlib import Path
from typing import Literal

from data_pipeline.sampling.candidates import WindowScores
from data_pipeline.sources.wikihop import Benchmark
from launcher.config.run_config import TaskWords
from launcher.tasks.sections import LabelledRun, LabelledSection


class QueriesSection(LabelledSection):
    """Which queries are learned, from the files of QAngaroo as they are."""

    source: Path
    """Folder, or .zip, with the files of QAngaroo, such as qangaroo_v1.1/wikihop, whose names tell train and dev apart;
    or one file. Relative to the working directory."""
    benchmark: Benchmark | None = None
    """Which is read of a source that has both, such as all of qangaroo_v1.1.zip; `null` = it has one."""
    masked: bool = False
    """Whether the files are read in which every candidate is a mask (train.masked.json), or the others."""
    long_documents: Literal["windows", "truncate_end"] = "windows"
    """What is read of documents that do not fit behind query and candidates: all of them in `windows`, each behind
    query and candidates, which training shows together; or their beginning (`truncate_end`)."""
    window_scores: WindowScores = "mean"
    """What the scores of a candidate in several windows become: their `mean`, or their `sum`."""


class WikihopRun(LabelledRun):
    """An encoder made long that learns to select one of many candidates as the answer to a query about documents."""

    task: Literal["wikihop"]
    """What is learned: here, to select answers among candidates."""
    data: QueriesSection
    """The queries, their candidates and their documents."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_label",
            bits_short="bits/label",
            scores=("accuracy",),
            score_short="accuracy",
            metrics={"accuracy": "max", "ece": "min"},
        )
