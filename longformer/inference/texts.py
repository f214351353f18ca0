"""What a model can be given as a text, and what of it fits into the model."""

import logging
import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from longformer.errors import LongformerError

log = logging.getLogger(__name__)


class Tokens(NamedTuple):
    """What a model reads of a text or a pair of texts."""

    ids: Sequence[int]
    parts: Sequence[int | None]
    """Which text a token belongs to, 0 or 1; None of the tokens that begin, part and end texts."""
    offsets: Sequence[tuple[int, int]]
    """Where a token begins and ends in its text, in characters."""
    types: Sequence[int]
    """Token types, for models that are told so which text is which."""

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        """Returns all tokens of an encoding."""
        return cls(encoding.ids, encoding.sequence_ids, encoding.offsets, encoding.type_ids)

    def shortened(self, positions: int, *, part: int, names: Sequence[str]) -> Self:
        """Returns the tokens that a model reads; if they are too many, the end of one text is left out.

        The tokenizer has no part in it: cutting by its own settings would change what other requests get.

        Args:
            positions: how many tokens the model reads.
            part: which text is cut, 0 or 1.
            names: of the texts, for the messages.

        Raises:
            LongformerError: nothing would be left of that text.
        """
        excess = len(self.ids) - positions
        if excess <= 0:
            return self
        of_part = [place for place, each in enumerate(self.parts) if each == part]
        if excess >= len(of_part):
            raise LongformerError(
                f"the {names[1 - part]} leaves no room for the {names[part]}: it has {self.parts.count(1 - part):,} "
                f"tokens and the model reads {positions:,}; shorten it"
            )
        log.warning(
            "the %s has %s tokens too many, the model reads %s: the rest is left out; a longer model is made with "
            "longformer convert ... --max-length %s",
            names[part],
            f"{excess:,}",
            f"{positions:,}",
            len(self.ids),
        )
        return self._without(set(of_part[-excess:]))

    def limited(self, count: int, *, part: int, name: str) -> Self:
        """Returns the tokens with the first `count` of one text at most, of this name; its end is left out."""
        of_part = [place for place, each in enumerate(self.parts) if each == part]
        if len(of_part) > count:
            log.warning("the %s has %s tokens, %s are read", name, f"{len(of_part):,}", f"{count:,}")
        return self._without(set(of_part[count:]))

    def _without(self, places: Collection[int]) -> Self:
        kept = [place for place in range(len(self.ids)) if place not in places]
        return type(self)(
            [self.ids[place] for place in kept],
            [self.parts[place] for place in kept],
            [self.offsets[place] for place in kept],
            [self.types[place] for place in kept],
        )

    def batch(self) -> Tensor:
        """Returns the token ids as a batch of one, (1, tokens)."""
        return torch.tensor([self.ids])


def added_ids(tokenizer: Tokenizer, tokens: Sequence[str], *, learned: str) -> list[int]:
    """Returns the ids of tokens that a task adds to a tokenizer.

    Args:
        tokenizer: of the model.
        tokens: the added ones.
        learned: how a model gets them, such as "on HotpotQA".

    Raises:
        LongformerError: it has not all of them.
    """
    found = [tokenizer.token_to_id(token) for token in tokens]
    if None in found:
        raise LongformerError(
            f"the tokenizer has no token {tokens[found.index(None)]}: train the model {learned} first"
        )
    return [number for number in found if number is not None]


def is_absent(value: Any) -> bool:
    """Returns whether a field of a record holds nothing, as JSON or pandas mark it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def check_choices(choices: Any, name: str = "choice", *, least: int = 2) -> None:
    """Raises LongformerError where these are not `least` or more texts, choices or others of this `name`."""
    if is_absent(choices):
        raise LongformerError(f"the {name}s are missing: give a list of texts")
    if not isinstance(choices, list | tuple | np.ndarray):  # an array where a table was read from Parquet
        raise LongformerError(
            f"the {name}s are not a list but of the type {type(choices).__name__}: give a list of texts"
        )
    for place, choice in enumerate(choices, start=1):
        check_text(choice, f"{name} {place}")
    if len(choices) < least:
        given = f"one {name} is" if len(choices) else f"no {name}s are"
        raise LongformerError(f"{given} given: give {'two' if least == 2 else 'one'} or more")


def check_text(text: Any, name: str) -> None:
    """Raises LongformerError, with the text called by its name, where it is no text or an empty one."""
    if is_absent(text):
        raise LongformerError(f"the {name} is missing: give a text")
    if not isinstance(text, str):
        raise LongformerError(f"the {name} is not a text but of the type {type(text).__name__}: write it as a string")
    if not text.strip():
        raise LongformerError(f"the {name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LongformerError(
            f"the {name} is not valid Unicode: character {error.start + 1:,} is half of a surrogate pair; decode the "
            "text as it was encoded"
        ) from None
