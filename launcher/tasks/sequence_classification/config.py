"""The sections of a run file for classifying texts: an encoder made long, and texts with labels or numbers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_pipeline.sources.labels import Problem
from launcher.config.run_config import Mode, TaskWords
from launcher.config.sections import PositiveNumber
from launcher.tasks.sections import LabelEvaluationSection, LabelledSection, PretrainedRun

ClassName = Annotated[str, Field(coerce_numbers_to_str=True)]


class ClassifiedSection(LabelledSection):
    """Which labelled texts are learned, from records or from a folder of text files for every class."""

    text: str = "text"
    """Field that holds the text."""
    label: str | tuple[str, ...] = "label"
    """Field that holds the label; or several fields, each of which stands for a class and holds 0 or 1."""
    problem: Problem = "single_label"
    """What a label is: `single_label` is one class, `multi_label` any number of classes (a list, or a text with
    semicolons), `regression` a number."""
    classes: tuple[ClassName, ...] | None = None
    """Names of the classes, in the order of the model's outputs; `null` = those of the training examples."""
    class_weights: Literal["balanced"] | dict[ClassName, PositiveNumber] | None = None
    """How much the examples of each class count in the loss: a number for every class by its name, or `balanced`: all
    classes as much as another, however rare; `null` = every example counts the same."""
    long_documents: Literal["truncate_end", "truncate_begin", "windows"] = "truncate_end"
    """What is read of texts that are longer than the phase's sequences: the beginning (`truncate_end`), the end
    (`truncate_begin`), or `windows`: training shows another window of each text in every epoch, and evaluation and
    prediction average the probabilities of all."""
    read_as: Literal["text"] | None = None
    """`text` reads files as text though they look like records."""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if isinstance(self.label, tuple):
            if self.problem != "multi_label":
                raise ValueError(f"problem is {self.problem}, but several fields of labels are multi_label")
            if self.classes not in (None, self.label):
                raise ValueError("classes is given beside several fields of labels, which are the classes")
        if self.classes is None:
            return self
        if self.problem == "regression":
            raise ValueError("classes is given, but a regression predicts numbers")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes is {list(self.classes)}, but it should be two or more different labels")
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.class_weights is None:
            return self
        if self.problem == "regression":
            raise ValueError("class_weights is given, but a regression has no classes")
        known = self.class_names
        if known is not None and self.class_weights != "balanced" and set(self.class_weights) != set(known):
            raise ValueError(f"class_weights names {list(self.class_weights)}, but the classes are {list(known)}")
        return self

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Returns the names of the classes; None where the training examples decide."""
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


class SequenceClassificationRun(PretrainedRun):
    """An encoder made long that learns to classify texts (Longformer paper, section 6)."""

    task: Literal["sequence_classification"]
    """What is learned: here, to classify texts."""
    data: ClassifiedSection
    """The texts and their labels."""
    evaluation: LabelEvaluationSection = LabelEvaluationSection()
    """How held-out texts are classified after each phase."""

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
