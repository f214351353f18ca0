"""How texts are classified: what is read of one that is too long, and what follows from the logits of its parts.

Training, evaluation and prediction share it through the `reading` of the model's config.json.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longformer.errors import LongformerError

Part = TypeVar("Part")
Inputs = Mapping[str, Sequence[int] | np.ndarray]
"""What a model reads of one text, special tokens included, by the names of its arguments; IDS is among them."""
IDS = "input_ids"
KEY = "reading"
"""Where a model's config tells of what it reads."""


@dataclass(frozen=True)
class Reading:
    """What a classifier reads of a text."""

    length: int
    """Tokens at a time, those that begin and end a text included."""
    long_documents: str = "truncate_end"
    """Of longer texts: `truncate_end` reads the beginning, `truncate_begin` the end, `windows` all of it in pieces
    whose probabilities are averaged."""

    @classmethod
    def of(cls, config: Any, positions: int) -> Self:
        """Returns the reading that a model's config tells of; else the beginning, as far as its `positions` go.

        Raises:
            LongformerError: the config tells of something else.
        """
        told = config.other.get(KEY, {})
        try:
            reading = cls(**{"length": positions, **told})
            if not 2 < reading.length <= positions:
                raise ValueError(f"length is {reading.length}")
            reading.parts([0])
        except (TypeError, ValueError):
            raise LongformerError(f"{KEY} of config.json is {told}, which is no way of reading texts") from None
        return reading

    @staticmethod
    def is_kept_in(config: Any) -> bool:
        """Returns whether a model's config tells of a reading, as those of models trained here do."""
        return KEY in config.other

    @property
    def settings(self) -> dict[str, Any]:
        """The reading as a model's config tells of it."""
        return {KEY: asdict(self)}

    def keep_in(self, config: Any) -> None:
        """Notes the reading in a model's config."""
        config.other = {**config.other, **self.settings}

    def parts(self, text: Sequence[int], around: int = 2) -> list[Sequence[int]]:
        """Returns what is read of a text, at least one part; windows follow each other, the last ends with the text.

        Args:
            text: token ids without special ones.
            around: special tokens that each part gets.

        Raises:
            ValueError: there is no such way of reading.
        """
        return [text[span] for span in self.spans(len(text), around)]

    def step(self, room: int) -> int:
        """Returns how many tokens further on the next window begins, given how many a window has."""
        return room

    def spans(self, tokens: int, around: int = 2) -> list[slice]:
        """Returns which of the tokens of a text are read, as `parts`, given how many it has."""
        room = self.length - around
        last, step = max(0, tokens - room), self.step(room)
        if self.long_documents == "truncate_end":
            starts = [0]
        elif self.long_documents == "truncate_begin":
            starts = [last]
        elif self.long_documents == "windows":
            starts = [min(last, step * number) for number in range(math.ceil(last / step) + 1)]
        else:
            raise ValueError(f"long_documents is {self.long_documents}")
        return [slice(start, start + room) for start in starts]


@dataclass(frozen=True)
class TextReading(Reading):
    """What a classifier of whole texts reads."""

    global_tokens: str = "first"
    """Attend to all others: the `first` token, the `question` and the first token, or `none`."""
    question: bool = False
    """Whether each text has a question beside it, which every part carries; see `longest_query`."""

    def __post_init__(self) -> None:
        if self.global_tokens not in ("first", "question", "none"):
            raise ValueError(f"global_tokens is {self.global_tokens}")

    @staticmethod
    def has_question(settings: Mapping[str, Any]) -> bool:
        """Returns whether the model with this config.json reads a question beside each text."""
        told = settings.get(KEY)
        return isinstance(told, Mapping) and bool(told.get("question"))


def batches_by_length(parts: Sequence[Part], batch_size: int, *, length: Callable[[Part], int]) -> list[list[Part]]:
    """Returns parts in batches of similar length, the same for every number of ranks; of equal ones in their order."""
    ordered = sorted(parts, key=length)
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def padded_batch(texts: Sequence[Inputs], *, padding: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns the arguments with which a model reads texts as one batch, each (texts, positions) long.

    Args:
        texts: all have the same names.
        padding: the token that fills up shorter texts.
        device: where the model is.
    """
    rows = [{name: torch.as_tensor(each, dtype=torch.long) for name, each in text.items()} for text in texts]
    batch = {
        name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=padding * (name == IDS))
        for name in rows[0]
    }
    batch["attention_mask"] = pad_sequence([torch.ones_like(row[IDS]) for row in rows], batch_first=True)
    return {name: each.to(device) for name, each in batch.items()}


def padded_arrays(arrays: Sequence[np.ndarray], filling: int) -> Tensor:
    """Returns arrays as one tensor of their type; shorter ones are filled up at the end of every dimension."""
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    padded = np.full((len(arrays), *shape), filling, dtype=arrays[0].dtype)
    for number, array in enumerate(arrays):
        padded[number : number + 1][(slice(None), *map(slice, array.shape))] = array
    return torch.from_numpy(padded)


@torch.no_grad()
def label_values(
    model: Any,
    texts: Sequence[Inputs],
    *,
    problem_type: str,
    padding: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Returns probabilities of classes, or of a regression the numbers, (texts, outputs) float32.

    Args:
        model: a `LongformerForSequenceClassification`, or an engine around it.
        texts: as in `padded_batch`, as are the other arguments.
        problem_type: single_label_classification, multi_label_classification or regression.
    """
    logits: Tensor = model(**padded_batch(texts, padding=padding, device=device)).logits.float()
    if problem_type == "multi_label_classification":
        return logits.sigmoid()
    return logits if problem_type == "regression" else logits.softmax(-1)
