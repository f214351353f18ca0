"""Two texts as one sequence, as the tokenizer of a model puts them together."""

from typing import NamedTuple

import numpy as np

from data_pipeline.tokenizers.tokenizer import TextFormat


class Pair(NamedTuple):
    """What a model reads of two texts."""

    ids: np.ndarray
    """(tokens,) int64, special ones included."""
    types: np.ndarray
    """(tokens,) int64: which text a token belongs to, for models that are told so."""


def paired(first: np.ndarray, second: np.ndarray, around: TextFormat) -> Pair:
    """Returns what a model reads of two texts, such as `<s> first </s> </s> second </s>`.

    Args:
        first, second: token ids without special ones, 1-D.
        around: what stands around them.
    """
    front = [*around.before, *first, *around.between]
    ids = np.array([*front, *second, *around.after], dtype=np.int64)
    return Pair(ids, np.where(np.arange(len(ids)) < len(front), 0, around.second_type))
