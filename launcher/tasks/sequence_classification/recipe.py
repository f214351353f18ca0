"""New run files for classifying texts: the published hyperparameters, epochs and the metric as the labels ask for."""

from data_pipeline.prepare.survey import survey_labelled
from launcher.tasks.recipes import Content, Recipe, RecipeRequest, is_uneven, label_run
from longformer.interop.sources import ENCODERS

_METRICS = {"single_label": "accuracy", "multi_label": "micro_f1", "regression": "root_mean_squared_error"}


def content(request: RecipeRequest, length: int) -> Content:
    """Returns the content of a run file with sequences of a length."""
    section = dict(request.survey.section)
    problem = section.get("problem", "single_label")
    metric = "macro_f1" if is_uneven(request.survey.classes) else _METRICS[problem]
    weights = {} if problem == "regression" else {"class_weights": None}
    return label_run(request, length, "sequence_classification", section | weights, metric)


RECIPE = Recipe(
    families=tuple(ENCODERS),
    published={},
    max_length=4_096,
    window=512,
    survey=survey_labelled,
    content=content,
)
