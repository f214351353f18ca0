"""What must be known of a batch on the host, read from the device in one go, and the errors it can reveal."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.models.longformer.config import LongformerConfig


@dataclass(frozen=True)
class BatchFacts:
    """Numbers about a batch; truth values are 0 and 1; 0 too where there is nothing to know."""

    padded: int = 0
    """Number of padded positions."""
    padding_is_alike: int = 0
    """Whether all padded positions hold the same id, position id and type id."""
    most_globals: int = 0
    """Largest number of global tokens in an example."""
    strange_attention_mask: int = 0
    strange_global_mask: int = 0
    """Whether a mask holds anything but 0 and 1."""
    global_padding: int = 0
    """Whether a padded position is called global."""
    lowest_id: int = 0
    highest_id: int = 0
    lowest_position: int = 0
    highest_position: int = 0
    lowest_type: int = 0
    highest_type: int = 0

    @classmethod
    def of(
        cls,
        attention_mask: Tensor | None,
        global_attention_mask: Tensor | None,
        input_ids: Tensor | None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Self:
        """Collect the facts of a batch, all tensors (batch, positions)."""
        facts: dict[str, Tensor] = {}
        if attention_mask is not None:
            facts["padded"] = (attention_mask == 0).sum()
            facts["strange_attention_mask"] = strange(attention_mask)
            if input_ids is not None and position_ids is not None and token_type_ids is not None:
                same = [alike(attention_mask == 0, each) for each in (input_ids, position_ids, token_type_ids)]
                facts["padding_is_alike"] = torch.stack(same).all()
        if global_attention_mask is not None:
            facts["most_globals"] = (global_attention_mask != 0).sum(1).max()
            facts["strange_global_mask"] = strange(global_attention_mask)
            if attention_mask is not None:
                facts["global_padding"] = ((global_attention_mask != 0) & (attention_mask == 0)).any()
        for name, values in (("id", input_ids), ("position", position_ids), ("type", token_type_ids)):
            if values is not None:
                facts |= {f"lowest_{name}": values.min(), f"highest_{name}": values.max()}
        if not facts:
            return cls()
        numbers = torch.stack([fact.long() for fact in facts.values()]).tolist()
        return cls(**dict(zip(facts, numbers, strict=True)))

    def check_masks(self) -> None:
        """Raise LongformerError, one sentence, when a mask cannot be understood."""
        if self.strange_attention_mask:
            raise LongformerError("attention_mask must hold 1 for tokens and 0 for padding, and nothing else")
        if self.strange_global_mask:
            raise LongformerError(
                "global_attention_mask must hold 1 for global tokens and 0 for the others, and nothing else "
                "(the older convention of one mask with 0, 1 and 2 is two masks here)"
            )
        if self.global_padding:
            raise LongformerError("global_attention_mask is 1 at a padded position (where attention_mask is 0)")

    def check_ids(self, vocabulary: int) -> None:
        """Raise LongformerError, one sentence, when a token id lies outside a vocabulary of this size."""
        if self.lowest_id < 0 or self.highest_id >= vocabulary:
            wrong = self.lowest_id if self.lowest_id < 0 else self.highest_id
            raise LongformerError(
                f"token id {wrong} is outside the vocabulary of {vocabulary}; was the text tokenized for another model?"
            )

    def check(self, config: LongformerConfig) -> None:
        """Raise LongformerError, one sentence, when a Longformer encoder cannot take the batch."""
        self.check_masks()
        self.check_ids(config.vocab_size)
        if self.lowest_type < 0 or self.highest_type >= config.type_vocab_size:
            wrong = self.lowest_type if self.lowest_type < 0 else self.highest_type
            raise LongformerError(
                f"token_type_ids holds {wrong}; the model knows the types 0 to {config.type_vocab_size - 1}"
            )
        if self.lowest_position < 0:
            raise LongformerError(f"position_ids holds {self.lowest_position}; positions are not negative")
        if self.highest_position >= config.max_position_embeddings:
            needed = self.highest_position - config.pad_token_id
            raise LongformerError(
                f"the text reaches token {needed}, the model has positions for {config.most_tokens}: shorten the text, "
                f"or convert the model to longer texts (longformer convert ... --max-length {needed})"
            )


def strange(mask: Tensor) -> Tensor:
    """Return whether a mask holds anything but 0 and 1."""
    return ((mask != 0) & (mask != 1)).any()


def alike(padding: Tensor, values: Tensor) -> Tensor:
    """Return whether `values` are the same wherever `padding` is True."""
    first = values.flatten()[padding.flatten().to(torch.uint8).argmax()]
    return ~(padding & (values != first)).any()
