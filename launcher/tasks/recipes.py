"""What a task's recipe for new run files is, and what recipes share: steps, batches and learning rates.

The published recipes (semantics.md 4, 5) are followed as far as the data goes. A task with a recipe has it as
`RECIPE` in its recipe.py; `longformer new` finds it by the name that the registry gives it.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.prepare.survey import Survey
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.planning.gpus import Gpu
from longformer.interop.sources import source_length

Content = dict[str, Any]
"""What a run file says, as YAML has it."""

UPDATES = 100
"""An epoch has so many updates; a small corpus gets smaller batches for it."""
EPOCHS = 3
TRAINED = 0.9
"""Share of the documents that is not held out."""
_BATCH_TEXTS = 32
"""Texts with labels in the published batches."""
_READ_TEXTS = 10_000
"""So many texts with labels are read over all epochs where there are few; at most in _MOST_EPOCHS."""
_MOST_EPOCHS = 15
_UNEVEN = 10
COVERED = 95
"""Percent of the texts that are read, or written, whole."""


@dataclass(frozen=True)
class BaseModel:
    """What is known of the model before the run."""

    source: Path
    """Its folder, which may not be there yet."""
    published: str | None
    """Whose shape it has until then; None where the folder tells."""
    settings: dict[str, Any]
    """Its config.json."""
    tokenizer: TextTokenizer | None
    """None while it is not there."""

    @property
    def length(self) -> int:
        """Tokens that it reads."""
        return source_length(self.settings)

    @property
    def window(self) -> int | None:
        """Neighbours that a token sees where the model is long already; None where it sees all."""
        windows = self.settings.get("attention_window")
        return int(windows[0] if isinstance(windows, list) else windows) if windows else None


@dataclass(frozen=True)
class Recipe:
    """How a task's new run files are written."""

    families: Collection[str]
    """Values of `model_type` that the model may have."""
    published: Mapping[str, dict[str, Any]]
    """config.json of the published models that the run file can name, by their names there."""
    max_length: int
    """Tokens of the published recipe's longest sequences."""
    window: int
    """Neighbours that a token sees in the published recipe, both sides together."""
    survey: Callable[[Path, TextTokenizer | None], Survey]
    """Looks at the documents of a file or folder."""
    content: Callable[["RecipeRequest", int], Content]
    """Returns the content of the run file for sequences of a length."""


@dataclass(frozen=True)
class RecipeRequest:
    """What a new run is to be."""

    recipe: Recipe
    name: str
    data: Path
    start: BaseModel
    survey: Survey
    machine: Gpu
    """Has the memory of one rank."""
    ranks: int

    def model_section(self, length: int) -> Content:
        """Returns the model section for sequences of a length."""
        start = self.start
        max_length = max(length, start.length)
        window = start.window or self.recipe.window
        published = {} if start.published is None else {"published": start.published}
        return {"source": str(start.source), **published, "max_length": max_length, "window": min(window, max_length)}

    def training_section(self, **learning: Any) -> Content:
        """Returns the training section with the recipe's own values."""
        precision = next(each for each in ("bf16", "fp16", "fp32") if each in self.machine.peak_flops)
        return {
            "zero_stage": 2,
            "precision": precision,
            **learning,
            "activation_checkpointing": False,
            "checkpoint_every_steps": 500,
        }

    def batch_size(self, samples: int, max_size: int) -> int:
        """Returns the largest batch, up to the published one, with enough updates in an epoch: ranks times 2^n."""
        size = self.ranks
        while 2 * size <= min(max_size, samples // UPDATES):
            size *= 2
        return size


def label_run(request: RecipeRequest, length: int, task: str, section: Content, metric: str) -> Content:
    """Returns the content of a run file for texts with labels.

    Args:
        request: what the run is to be.
        length: tokens of a sequence.
        task: its name.
        section: what the data section says beside where the data lies.
        metric: tells the best step.
    """
    survey = request.survey
    texts = survey.splits.get("train") or math.ceil(TRAINED * survey.documents)
    epochs = min(_MOST_EPOCHS, max(EPOCHS, _READ_TEXTS // texts))
    # Published runs have as many updates in all as those of other tasks have in two epochs.
    batch_size = request.batch_size(epochs * texts // 2, _BATCH_TEXTS)
    steps = schedule(math.ceil(epochs * texts / batch_size), batch_size)
    phase = {
        "name": "learn",
        "sequence_length": length,
        **{"epochs" if key == "steps" else key: epochs if key == "steps" else value for key, value in steps.items()},
        "decay": "linear",
        "evaluate_every": {"epochs": 1},
        "best": {"metric": metric, "patience": 3},
    }
    return {
        "name": request.name,
        "task": task,
        "model": request.model_section(length),
        "data": {
            "directory": f"data/{request.name}",
            "source": str(request.data),
            **section,
            "damaged_allowed": survey.damaged_allowed,
            "bucket_batches": 16,
        },
        "training": request.training_section(gradient_clipping=1.0),
        "phases": [phase],
        "evaluation": {"batch_size": 8},
    }


def is_uneven(classes: Mapping[str, int]) -> bool:
    """Returns whether a class is so rare that a model which never says it loses little."""
    return bool(classes) and _UNEVEN * min(classes.values()) < max(classes.values())


def schedule(steps: int, batch_size: int) -> Content:
    """Returns the keys of a phase that say how it learns."""
    return {
        "batch_size": batch_size,
        "micro_batch_size": None,
        "steps": steps,
        "learning_rate": 3e-5,
        "warmup_steps": min(500, steps // 10),
    }


def covered(lengths: np.ndarray) -> int:
    """Returns the tokens that hold all but the longest texts, with one before and one behind."""
    return math.ceil(np.percentile(lengths, COVERED)) + 2
