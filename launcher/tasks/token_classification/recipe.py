"""New run files for labelling words: the published hyperparameters, and epochs as the number of texts asks for."""

from data_pipeline.prepare.survey import survey_tagged
from launcher.tasks.recipes import Content, Recipe, RecipeRequest, label_run
from longformer.interop.sources import ENCODERS


def content(request: RecipeRequest, length: int) -> Content:
    """Returns the content of a run file with sequences of a length."""
    section = {**request.survey.section, "class_weights": None}
    return label_run(request, length, "token_classification", section, "micro_f1")


RECIPE = Recipe(
    families=tuple(ENCODERS),
    published={},
    max_length=4_096,
    window=512,
    survey=survey_tagged,
    content=content,
)
