"""How long sequences are and what fits: what a new run file says, from the look of the data and the memory."""

import math
from collections.abc import Iterator
from typing import Any

from launcher.planning.fit import changed, first_fit
from launcher.tasks.recipes import Content, RecipeRequest, covered
from launcher.tasks.registry import TASKS, task_of
from longformer.errors import LongformerError

MIN_LENGTH = 512


def choose(request: RecipeRequest) -> Content:
    """Returns the content of the run file, as long as the data asks for and the memory allows.

    Raises:
        LongformerError: there is no room for the shortest sequences.
    """
    for length in _lengths(request):
        content = request.recipe.content(request, length)
        if _fit(content, request):
            return content
    raise LongformerError(
        f"{request.start.source} does not fit into the {request.machine.memory / 1e9:.0f} GB of "
        f"{request.machine.name} even with {MIN_LENGTH} tokens; plan for larger or more of them with --gpu and --ranks"
    )


def _lengths(request: RecipeRequest) -> Iterator[int]:
    """Yields the lengths to try: the shortest power of two that covers the documents, then shorter ones."""
    max_length = max(request.recipe.max_length, request.start.length)
    length = min(max_length, 2 ** math.ceil(math.log2(max(MIN_LENGTH, covered(request.survey.lengths)))))
    while length >= MIN_LENGTH:
        yield length
        length //= 2


def _fit(content: dict[str, Any], request: RecipeRequest) -> bool:
    """Writes into the content what makes it fit; returns whether anything does."""
    config = TASKS[content["task"]].load_config().model_validate(content)
    task, last = task_of(config), len(config.phases) - 1
    longest = first_fit(task.cost(last), config, last, request.machine, gpus=request.ranks)
    if longest is None:
        return False
    content["training"] |= longest.training
    config = changed(config, training=longest.training)
    for index, phase in enumerate(content["phases"]):
        fit = first_fit(task.cost(index), config, index, request.machine, gpus=request.ranks)
        assert fit is not None, "shorter sequences fit where the longest do"
        phase["micro_batch_size"] = fit.micro_batch_size
    return True
