"""The sections of a run file for classifying texts: an encoder made long, and texts with labels or numbers."""

from typing import Literal, Self

from pydantic import model_validator

from data_pipeline.sources.labels import Problem
from launcher.config.run_config import Mode, TaskWords
from launcher.tasks.sections import ClassesRun, ClassesSection


class ClassifiedSection(ClassesSection):
    """Which labelled texts are learned, from records or from a folder of text files for every class."""

    layout: Literal["records", "hyperpartisan", "hyperpartisan_clean"] = "records"
    """What `source` holds: `records` with named fields or a folder for every class; or the files of SemEval-2019 task 4
    by article, in the splits of the Longformer paper, which leak, or in clean ones."""
    text: str = "text"
    """Field that holds the text."""
    question: str | None = None
    """Field that holds a question about the text, or another text to read with it: it stands before every part of the
    text that is read, and only the text is cut. `null` = none."""
    global_tokens: Literal["first", "question", "none"] = "first"
    """Which tokens attend to all and are seen by all: the `first`, the first and those of the `question`, or `none`."""
    label: str | tuple[str, ...] = "label"
    """Field that holds the label; or several fields, each of which stands for a class and holds 0 or 1."""
    problem: Problem = "single_label"
    """What a label is: `single_label` is one class, `multi_label` any number of classes (a list, or a text with
    semicolons), `regression` a number."""
    long_documents: Literal["truncate_end", "truncate_begin", "windows"] = "truncate_end"
    """What is read of texts that are longer than the phase's sequences: the beginning (`truncate_end`), the end
    (`truncate_begin`), or `windows`: training shows another window of each text in every epoch, and evaluation and
    prediction average the probabilities of all."""
    read_as: Literal["text"] | None = None
    """`text` reads files as text though they look like records."""

    @model_validator(mode="after")
    def _check_problem(self) -> Self:
        if isinstance(self.label, tuple):
            if self.problem != "multi_label":
                raise ValueError(f"problem is {self.problem}, but several fields of labels are multi_label")
            if self.classes not in (None, self.label):
                raise ValueError("classes is given beside several fields of labels, which are the classes")
        if self.problem == "regression" and self.classes is not None:
            raise ValueError("classes is given, but a regression predicts numbers")
        if self.problem == "regression" and self.class_weights is not None:
            raise ValueError("class_weights is given, but a regression has no classes")
        return self

    @model_validator(mode="after")
    def _check_question(self) -> Self:
        if self.global_tokens == "question" and self.question is None:
            raise ValueError("global_tokens is question, but there is none: name its field with data.question")
        if self.question is not None and self.layout != "records":
            raise ValueError(f"question is {self.question}, but articles of the layout {self.layout} have none")
        return self

    @property
    def class_names(self) -> tuple[str, ...] | None:
        if self.problem == "regression":
            return ()
        return self.label if isinstance(self.label, tuple) else self.classes


_OF_ALL_CLASSES: dict[str, Mode] = {
    **dict.fromkeys(("macro_precision", "macro_recall", "macro_f1", "micro_f1", "auroc", "average_precision"), "max"),
    "ece": "min",
}
_METRICS: dict[str, dict[str, Mode]] = {
    "single_label": {"accuracy": "max", "mcc": "max", **_OF_ALL_CLASSES},
    "multi_label": {"exact_match": "max", "micro_precision": "max", "micro_recall": "max", **_OF_ALL_CLASSES},
    "regression": {
        "mean_absolute_error": "min",
        "root_mean_squared_error": "min",
        "r2": "max",
        "pearson": "max",
        "spearman": "max",
    },
}
"""Scores that can tell the best step of a phase."""


class SequenceClassificationRun(ClassesRun):
    """An encoder made long that learns to classify texts (Longformer paper, section 6)."""

    task: Literal["sequence_classification"]
    """What is learned: here, to classify texts."""
    data: ClassifiedSection
    """The texts and their labels."""

    @property
    def words(self) -> TaskWords:
        scores, short = {
            "single_label": (("accuracy", "macro_f1"), "accuracy"),
            "multi_label": (("micro_f1", "macro_f1"), "micro F1"),
            "regression": (("mean_absolute_error", "root_mean_squared_error"), "mean error"),
        }[self.data.problem]
        metrics = _METRICS[self.data.problem]
        return TaskWords(
            bits="bits_per_label", bits_short="bits/label", scores=scores, score_short=short, metrics=metrics
        )
