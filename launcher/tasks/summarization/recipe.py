"""New run files for summarization, after the published recipe (semantics.md 5)."""

import math

import numpy as np

from data_pipeline.prepare.survey import survey_summaries
from launcher.tasks.recipes import COVERED, EPOCHS, TRAINED, Content, Recipe, RecipeRequest, covered, schedule
from launcher.tasks.summarization.config import PUBLISHED
from longformer.interop.sources import ENCODER_DECODERS

_FIRST_LENGTHS = (1_024, 4_096)
"""At which documents with summaries are read first."""
_BATCH_DOCUMENTS = 64
_EVALUATED = 500
"""Documents of a split that are written about after a phase, at most."""


def content(request: RecipeRequest, length: int) -> Content:
    """Returns the content of a run file whose longest sequences have a length."""
    survey = request.survey
    documents = survey.splits.get("train") or math.ceil(TRAINED * survey.documents)
    batch_size = request.batch_size(documents, _BATCH_DOCUMENTS)
    target_length = min(1_024, max(32, 16 * math.ceil(covered(survey.summary_lengths) / 16)))
    lengths = [*(shorter for shorter in _FIRST_LENGTHS if shorter < length), length]
    phases = [
        {
            "name": f"length-{each}",
            "sequence_length": each,
            # The longest is read most often, as in configs/run/led_arxiv_large.yaml.
            **schedule(math.ceil((EPOCHS - len(lengths) + 1 + index) * documents / batch_size), batch_size),
            "decay": "linear",
        }
        for index, each in enumerate(lengths)
    ]
    return {
        "name": request.name,
        "task": "summarization",
        "model": request.model_section(length),
        "data": {
            "directory": f"data/{request.name}",
            "source": str(request.data),
            "layout": survey.fields,
            "target_length": target_length,
            "label_smoothing": 0.1,
            "damaged_allowed": survey.damaged_allowed,
            "bucket_batches": 32,
        },
        "training": request.training_section(gradient_clipping=1.0, adam_betas=[0.9, 0.999], adam_epsilon=1e-8),
        "phases": phases,
        "evaluation": {
            "batch_size": 4,
            "limit_documents": _EVALUATED,
            "num_beams": 4,
            "length_penalty": 2.0,
            "no_repeat_ngram_size": 3,
            "min_length": int(np.percentile(survey.summary_lengths, 100 - COVERED)),
            "max_length": target_length,
        },
    }


RECIPE = Recipe(
    families=tuple(ENCODER_DECODERS),
    published=dict(PUBLISHED.items()),
    max_length=16_384,
    window=1_024,
    survey=survey_summaries,
    content=content,
)
