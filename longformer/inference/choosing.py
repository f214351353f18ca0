"""How a model chooses: a text is read beside each choice, in the parts that a `Reading` reads.

Evaluation and prediction share it. All choices are read beside the same part of the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer

from longformer.errors import LongformerError
from longformer.inference.classification import IDS, Inputs, Reading, padded_batch


@dataclass(frozen=True)
class Around:
    """The special tokens of a pair of texts: `before text between choice after`."""

    before: Sequence[int]
    between: Sequence[int]
    after: Sequence[int]
    second_type: int
    """The token type of the choice and what follows it."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, types: int) -> Self:
        """Returns those that a tokenizer puts around a pair, for a model that knows so many token types."""
        pair = tokenizer.encode("a", "a")
        places: tuple[list[int], list[int]] = ([], [])
        for place, part in enumerate(pair.sequence_ids):
            if part is not None:
                places[part].append(place)
        first, second = places
        between = pair.ids[first[-1] + 1 : second[0]]
        return cls(
            pair.ids[: first[0]], between, pair.ids[second[-1] + 1 :], pair.type_ids[second[0]] if types > 1 else 0
        )

    def beside(self, choices: Sequence[Sequence[int] | np.ndarray]) -> int:
        """Returns how many tokens stand beside a text, with the longest of its choices."""
        return len(self.before) + len(self.between) + len(self.after) + max(map(len, choices))


def choice_inputs(
    reading: Reading, text: Sequence[int], choices: Sequence[Sequence[int] | np.ndarray], around: Around
) -> list[list[Inputs]]:
    """Returns what is read of a text, a part at a time, each beside all choices; all behind the tokens that part text
    and choice is global.

    Args:
        reading: says what is read of the text; choices are read whole.
        text, choices: token ids without special ones.
        around: the special tokens.

    Raises:
        LongformerError: the choices leave no room for the text.
    """
    beside = around.beside(choices)
    if beside >= reading.length:
        raise LongformerError(
            f"the longest choice leaves no room for the text: it has {beside:,} tokens with those around it, and the "
            f"question where there is one, and {reading.length:,} are read; shorten it"
        )
    return [
        [_inputs([*around.before, *part, *around.between], [*choice, *around.after], around) for choice in choices]
        for part in reading.parts(text, beside)
    ]


def _inputs(front: list[int], behind: list[int], around: Around) -> Inputs:
    is_behind = [0] * len(front) + [1] * len(behind)
    types = [around.second_type * each for each in is_behind]
    return {IDS: front + behind, "token_type_ids": types, "global_attention_mask": is_behind}


@torch.no_grad()
def choice_values(
    model: Any, examples: Sequence[Sequence[Inputs]], *, padding: int, device: torch.device | str = "cpu"
) -> list[list[float]]:
    """Returns the probabilities of the choices of each example.

    Args:
        model: a `LongformerForMultipleChoice`, or an engine around it.
        examples: what is read of the choices of each; all are read as one batch.
        padding: the token that fills up shorter ones.
        device: where the model is.
    """
    rows = padded_batch([choice for example in examples for choice in example], padding=padding, device=device)
    counts = torch.tensor([len(example) for example in examples], device=device)
    is_choice = torch.arange(int(counts.max()), device=device) < counts[:, None]
    batch = {}
    for name, each in rows.items():
        batch[name] = each.new_zeros(*is_choice.shape, each.shape[-1])
        batch[name][is_choice] = each
    values = model(**batch).logits.float().softmax(-1).tolist()
    return [value[: len(example)] for value, example in zip(values, examples, strict=True)]
