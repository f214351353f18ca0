"""New run files for answering questions: the published hyperparameters, and epochs as the number of questions asks."""

from data_pipeline.prepare.survey import survey_questions
from launcher.tasks.recipes import Content, Recipe, RecipeRequest, label_run
from longformer.interop.sources import ENCODERS


def content(request: RecipeRequest, length: int) -> Content:
    """Returns the content of a run file with sequences of a length."""
    section = {**request.survey.section, "longest_answer": 30}
    return label_run(request, length, "extractive_qa", section, "f1")


RECIPE = Recipe(
    families=tuple(ENCODERS),
    published={},
    max_length=4_096,
    window=512,
    survey=survey_questions,
    content=content,
)
