"""Which tokens a head makes global when its user does not say (semantics.md 1.3)."""

import torch
from torch import Tensor

from longformer.errors import LongformerError


def first_token(shape: torch.Size, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """Makes the first token of every text global, on whichever side its padding is."""
    first = torch.zeros(shape[0], dtype=torch.long, device=device)
    if attention_mask is not None:
        first = first_positions(attention_mask)
    return only_tokens(torch.arange(shape[1], device=device) == first[:, None], attention_mask)


def first_positions(attention_mask: Tensor) -> Tensor:
    """Returns (batch,) long: where the first token of every text stands; 0 where there is none."""
    return (attention_mask != 0).to(torch.uint8).argmax(1)


def question(input_ids: Tensor, separator: int, attention_mask: Tensor | None) -> Tensor:
    """Makes everything before the first separator global."""
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    return only_tokens(positions < first_separator(input_ids, separator), attention_mask)


def second_text(input_ids: Tensor, separator: int, attention_mask: Tensor | None) -> Tensor:
    """Makes everything behind the two separators that stand between two texts global."""
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    return only_tokens(positions > first_separator(input_ids, separator) + 1, attention_mask)


def first_separator(input_ids: Tensor, separator: int) -> Tensor:
    """Returns (batch, 1): where the first separator of every row stands.

    Raises:
        LongformerError: a row does not hold exactly three, as `<s> question </s></s> text </s>` does.
    """
    is_separator = input_ids == separator
    if bool((is_separator.sum(1) != 3).any()):
        raise LongformerError(
            f"every row must hold the separator token {separator} exactly three times "
            "(<s> question </s></s> text </s>); otherwise give a global_attention_mask"
        )
    return is_separator.to(torch.uint8).argmax(1, keepdim=True)


def only_tokens(mask: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Takes padding out of a mask."""
    return mask if attention_mask is None else mask & (attention_mask != 0)
