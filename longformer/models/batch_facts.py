"""What must be known of a batch on the host, read from the device in one go, and the errors it can reveal."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.models.longformer_config import LongformerConfig


@dataclass(frozen=True)
class BatchFacts:
    """Numbers about a batch; truth values are 0 and 1."""

    padded: int
    """Number of padded positions."""
    padding_is_alike: int
    """Whether all padded positions hold the same id, position id and type id."""
    most_globals: int
    """Largest number of global tokens in an example."""
    strange_attention_mask: int
    strange_global_mask: int
    """Whether a mask holds anything but 0 and 1."""
    global_padding: int
    """Whether a padded position is called global."""
    lowest_id: int
    highest_id: int
    lowest_position: int
    highest_position: int
    lowest_type: int
    highest_type: int

    @classmethod
    def of(
        cls,
        attention_mask: Tensor | None,
        global_attention_mask: Tensor | None,
        position_ids: Tensor,
        token_type_ids: Tensor,
        input_ids: Tensor | None,
    ) -> Self:
        """Collect the facts of a batch, all tensors (batch, positions)."""
        no = torch.zeros((), dtype=torch.long, device=position_ids.device)
        is_token = torch.ones_like(position_ids) if attention_mask is None else attention_mask
        is_global = no if global_attention_mask is None else global_attention_mask
        padding = is_token == 0
        facts = {
            "padded": padding.sum(),
            "padding_is_alike": no,
            "most_globals": no if global_attention_mask is None else (is_global != 0).sum(1).max(),
            "strange_attention_mask": ((is_token != 0) & (is_token != 1)).any(),
            "strange_global_mask": ((is_global != 0) & (is_global != 1)).any(),
            "global_padding": ((is_global != 0) & padding).any(),
            "lowest_id": no,
            "highest_id": no,
            "lowest_position": position_ids.min(),
            "highest_position": position_ids.max(),
            "lowest_type": token_type_ids.min(),
            "highest_type": token_type_ids.max(),
        }
        if input_ids is not None:
            facts |= {"lowest_id": input_ids.min(), "highest_id": input_ids.max()}
            facts["padding_is_alike"] = (
                alike(padding, input_ids) & alike(padding, position_ids) & alike(padding, token_type_ids)
            )
        return cls(*torch.stack([facts[field.name].long() for field in fields(cls)]).tolist())

    def check(self, config: LongformerConfig) -> None:
        """Raise LongformerError, one sentence, when the model cannot take the batch."""
        if self.strange_attention_mask:
            raise LongformerError("attention_mask must hold 1 for tokens and 0 for padding, and nothing else")
        if self.strange_global_mask:
            raise LongformerError(
                "global_attention_mask must hold 1 for global tokens and 0 for the others, and nothing else "
                "(the older convention of one mask with 0, 1 and 2 is two masks here)"
            )
        if self.global_padding:
            raise LongformerError("global_attention_mask is 1 at a padded position (where attention_mask is 0)")
        if self.lowest_id < 0 or self.highest_id >= config.vocab_size:
            wrong = self.lowest_id if self.lowest_id < 0 else self.highest_id
            raise LongformerError(
                f"token id {wrong} is outside the vocabulary of {config.vocab_size}; "
                "was the text tokenized for another model?"
            )
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


def alike(padding: Tensor, values: Tensor) -> Tensor:
    """Return whether `values` are the same wherever `padding` is True."""
    first = values.flatten()[padding.flatten().to(torch.uint8).argmax()]
    return ~(padding & (values != first)).any()
