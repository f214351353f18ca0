"""How long, how much at a time and how often: what a new run file says, from the look of the data and the memory.

The published recipes (spec sections 4 and 6) are followed as far as the data goes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.prepare.survey import Survey
from launcher.config.run_config import RunConfig
from launcher.planning.gpu_plan import changed, first_fit
from launcher.planning.gpus import Gpu
from launcher.planning.new_run.base_model import Start, TaskName
from launcher.tasks.masked_lm.config import MaskedLMRun
from launcher.tasks.summarization.config import SummarizationRun
from longformer.errors import LongformerError

Content = dict[str, Any]

SHORTEST = 512
LONGEST: dict[TaskName, int] = {"mlm": 4_096, "summarize": 16_384}
"""Tokens of the published recipes."""
WINDOW: dict[TaskName, int] = {"mlm": 512, "summarize": 1_024}
SHORTER_INPUT = (1_024, 4_096)
"""Lengths at which documents with summaries are read first."""
BATCH_TOKENS = 2**18
BATCH_DOCUMENTS = 64
UPDATES = 100
"""An epoch has so many updates; a small corpus gets smaller batches for it."""
EPOCHS = 3
MOST_STEPS = 65_000
TRAINED = 0.9
"""Share of the documents that is not held out."""
COVERED = 95
"""Percent of the texts that are read, or written, whole."""
JUDGED = 500
"""Documents of a split that are written about after a phase, at most."""


@dataclass(frozen=True)
class Wish:
    """What a new run is to be."""

    task: TaskName
    name: str
    data: Path
    start: Start
    survey: Survey
    machine: Gpu
    """Has the memory of one rank."""
    ranks: int


def choose(wish: Wish) -> Content:
    """Return the content of the run file, as long as the data asks for and the memory allows.

    Raises:
        LongformerError: there is no room for the shortest sequences.
    """
    for length in _lengths(wish):
        content = _masked_lm(wish, length) if wish.task == "mlm" else _summarization(wish, length)
        if _fit(content, wish):
            return content
    raise LongformerError(
        f"{wish.start.source} does not fit into the {wish.machine.memory / 1e9:.0f} GB of {wish.machine.name} even "
        f"with {SHORTEST} tokens; plan for larger or more of them with --gpu and --ranks"
    )


def covered(lengths: np.ndarray) -> int:
    """Return the tokens that hold all but the longest texts, with one before and one behind."""
    return math.ceil(np.percentile(lengths, COVERED)) + 2


def _lengths(wish: Wish) -> Iterator[int]:
    """Yield the lengths to try: the shortest power of two that covers the documents, then shorter ones."""
    most = max(LONGEST[wish.task], wish.start.length)
    length = min(most, 2 ** math.ceil(math.log2(max(SHORTEST, covered(wish.survey.lengths)))))
    while length >= SHORTEST:
        yield length
        length //= 2


def _masked_lm(wish: Wish, length: int) -> Content:
    survey = wish.survey
    rows = math.ceil(TRAINED * survey.tokens / length)
    batch_size = _batch_size(rows, BATCH_TOKENS // length, wish.ranks)
    steps = min(MOST_STEPS, math.ceil(EPOCHS * rows / batch_size))
    corpus = {"name": wish.name, "path": str(wish.data), "weight": 1.0, "field": survey.fields}
    phase = {"name": "continue", "sequence_length": length, **_learning(steps, batch_size), "decay": "cubic"}
    return {
        "name": wish.name,
        "task": "masked_lm",
        "model": _model(wish, length),
        "data": {
            "directory": f"data/{wish.name}",
            "sources": [corpus | {"damaged_allowed": 2 * survey.damaged}],
            "masked": 0.15,
        },
        "training": _training(wish, gradient_clipping=5.0, adam_betas=[0.9, 0.98], adam_epsilon=1e-6),
        "phases": [phase],
        "evaluation": {"batch_size": 4, "limit_tokens": 4_000_000},
    }


def _summarization(wish: Wish, length: int) -> Content:
    survey = wish.survey
    documents = math.ceil(TRAINED * survey.documents)
    batch_size = _batch_size(documents, BATCH_DOCUMENTS, wish.ranks)
    target_length = min(1_024, max(32, 16 * math.ceil(covered(survey.summary_lengths) / 16)))
    lengths = [*(shorter for shorter in SHORTER_INPUT if shorter < length), length]
    phases = [
        {
            "name": f"length-{each}",
            "sequence_length": each,
            # The longest is read most often, as in configs/run/led_arxiv_large.yaml.
            **_learning(math.ceil((EPOCHS - len(lengths) + 1 + index) * documents / batch_size), batch_size),
            "decay": "linear",
        }
        for index, each in enumerate(lengths)
    ]
    return {
        "name": wish.name,
        "task": "summarization",
        "model": _model(wish, length),
        "data": {
            "directory": f"data/{wish.name}",
            "source": str(wish.data),
            "layout": survey.fields,
            "target_length": target_length,
            "label_smoothing": 0.1,
            "damaged_allowed": 2 * survey.damaged,
            "bucket_batches": 32,
        },
        "training": _training(wish, gradient_clipping=1.0, adam_betas=[0.9, 0.999], adam_epsilon=1e-8),
        "phases": phases,
        "evaluation": {
            "batch_size": 4,
            "limit_documents": JUDGED,
            "num_beams": 4,
            "length_penalty": 2.0,
            "no_repeat_ngram_size": 3,
            "min_length": int(np.percentile(survey.summary_lengths, 100 - COVERED)),
            "max_length": target_length,
        },
    }


def _model(wish: Wish, length: int) -> Content:
    start = wish.start
    max_length = max(length, start.length)
    window = start.window or WINDOW[wish.task]
    published = {} if start.published is None else {"published": start.published}
    return {"source": str(start.source), **published, "max_length": max_length, "window": min(window, max_length)}


def _training(wish: Wish, **learning: Any) -> Content:
    precision = next(each for each in ("bf16", "fp16", "fp32") if each in wish.machine.peak_flops)
    return {
        "zero_stage": 2,
        "precision": precision,
        **learning,
        "activation_checkpointing": False,
        "checkpoint_every_steps": 500,
    }


def _learning(steps: int, batch_size: int) -> Content:
    return {
        "batch_size": batch_size,
        "micro_batch_size": None,
        "steps": steps,
        "learning_rate": 3e-5,
        "warmup_steps": min(500, steps // 10),
    }


def _batch_size(samples: int, most: int, ranks: int) -> int:
    """Return the largest batch, up to the published one, with enough updates in an epoch: ranks times a power of 2."""
    size = ranks
    while 2 * size <= min(most, samples // UPDATES):
        size *= 2
    return size


def _fit(content: Content, wish: Wish) -> bool:
    """Write into the content what makes it fit; return whether anything does."""
    kind: type[RunConfig] = MaskedLMRun if wish.task == "mlm" else SummarizationRun
    config = kind.model_validate(content)
    longest = first_fit(config, len(config.phases) - 1, wish.machine, gpus=wish.ranks)
    if longest is None:
        return False
    content["training"] |= longest.training
    config = changed(config, training=longest.training)
    for index, phase in enumerate(content["phases"]):
        fit = first_fit(config, index, wish.machine, gpus=wish.ranks)
        assert fit is not None, "shorter sequences fit where the longest do"
        phase["micro_batch_size"] = fit.micro_batch_size
    return True
