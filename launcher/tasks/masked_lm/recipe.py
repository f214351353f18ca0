"""New run files for continued masked-LM pretraining, after the published recipe (semantics.md 4)."""

import math

from data_pipeline.prepare.survey import survey_documents
from launcher.tasks.masked_lm.config import PUBLISHED
from launcher.tasks.recipes import EPOCHS, TRAINED, Content, Recipe, RecipeRequest, schedule
from longformer.interop.sources import ENCODERS

_BATCH_TOKENS = 2**18
_MAX_STEPS = 65_000


def content(request: RecipeRequest, length: int) -> Content:
    """Returns the content of a run file with sequences of a length."""
    survey = request.survey
    sequences = math.ceil(TRAINED * survey.tokens / length)
    batch_size = request.batch_size(sequences, _BATCH_TOKENS // length)
    steps = min(_MAX_STEPS, math.ceil(EPOCHS * sequences / batch_size))
    corpus = {"name": request.name, "path": str(request.data), "weight": 1.0, "field": survey.fields}
    return {
        "name": request.name,
        "task": "masked_lm",
        "model": request.model_section(length),
        "data": {
            "directory": f"data/{request.name}",
            "sources": [corpus | {"damaged_allowed": survey.damaged_allowed}],
            "masked": 0.15,
        },
        "training": request.training_section(gradient_clipping=5.0, adam_betas=[0.9, 0.98], adam_epsilon=1e-6),
        "phases": [{"name": "continue", "sequence_length": length, **schedule(steps, batch_size), "decay": "cubic"}],
        "evaluation": {"batch_size": 4, "limit_tokens": 4_000_000},
    }


RECIPE = Recipe(
    families=tuple(ENCODERS),
    published=dict(PUBLISHED.items()),
    max_length=4_096,
    window=512,
    survey=survey_documents,
    content=content,
)
