"""The border of a Longformer model: what a user hands in is checked here, once, and turned into what layers need.

Everything that must be known on the host (wrong values, number of global tokens, amount of padding) is read from
the device in one go, or handed in as `BatchFacts` that were read while the batch was on the CPU; behind the border
nothing waits for the device.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from longformer.attention.metadata import AttentionMetadata, GlobalTokens, Packing
from longformer.errors import LongformerError
from longformer.models.common.token_loss import IGNORED
from longformer.models.longformer.config import LongformerConfig


@dataclass(frozen=True)
class BatchFacts:
    """Numbers about a batch; truth values are 0 and 1; 0 too where there is nothing to know.

    A model trusts those that it is handed: they must be of the very batch.
    """

    padded: int = 0
    """Number of padded positions."""
    padding_is_constant: int = 0
    """Whether all padded positions hold the same id, position id and type id."""
    sequences: int = 0
    """Number of runs of tokens between padding, ends of rows and borders of documents; where either is given."""
    max_seqlen: int = 0
    """Length of the longest one."""
    has_holes: int = 0
    """Whether padding stands between the tokens of a row."""
    globals: int = 0
    """Number of global tokens."""
    max_globals: int = 0
    """Largest number of global tokens in a row, or in a document where these are given."""
    invalid_attention_mask: int = 0
    invalid_global_mask: int = 0
    """Whether a mask holds anything but 0 and 1."""
    global_padding: int = 0
    """Whether a padded position is called global."""
    min_id: int = 0
    max_id: int = 0
    min_position: int = 0
    max_position: int = 0
    min_type: int = 0
    max_type: int = 0

    labelled: int = 0
    """Number of positions with a label."""
    min_label: int = 0
    max_label: int = 0
    """Of all labels that count, and 0."""
    target_padded: int = 0
    """Number of padded positions that a decoder is given."""
    invalid_target_mask: int = 0
    min_target: int = 0
    max_target: int = 0
    """Of the token ids that a decoder is given."""
    texts: int = 0
    """Of several choices for every example: how many there are in all."""
    spans: int = 0
    """Of documents whose mentions are clustered: how many spans are kept of the one with most words."""

    @classmethod
    def of(
        cls,
        *,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        target_mask: Tensor | None = None,
        target_ids: Tensor | None = None,
    ) -> Self:
        """Collects the facts of a batch, all tensors (batch, positions); reads them in one go."""
        facts: dict[str, Tensor] = {}
        if attention_mask is not None:
            facts["padded"] = (attention_mask == 0).sum()
            facts["invalid_attention_mask"] = has_invalid_values(attention_mask)
            if input_ids is not None and position_ids is not None and token_type_ids is not None:
                same = [is_constant(attention_mask == 0, each) for each in (input_ids, position_ids, token_type_ids)]
                facts["padding_is_constant"] = torch.stack(same).all()
        if attention_mask is not None or document_ids is not None:
            is_token = tokens_of(attention_mask, document_ids)
            is_first = first_tokens(is_token, document_ids)
            facts["sequences"] = is_first.sum()
            facts["max_seqlen"] = (count_from(is_first, torch.ones_like(is_token)) * is_token).max()
            facts["has_holes"] = (first_tokens(is_token, None).sum(1) > 1).any()
        if global_attention_mask is not None:
            is_global = global_attention_mask != 0
            facts["globals"] = is_global.sum()
            count = is_global.cumsum(1) if document_ids is None else count_from(is_first, is_global)
            facts["max_globals"] = count.max()
            facts["invalid_global_mask"] = has_invalid_values(global_attention_mask)
            if attention_mask is not None:
                facts["global_padding"] = ((global_attention_mask != 0) & (attention_mask == 0)).any()
        if target_mask is not None:
            facts["target_padded"] = (target_mask == 0).sum()
            facts["invalid_target_mask"] = has_invalid_values(target_mask)
        known_labels = None
        if labels is not None:
            facts["labelled"] = (labels != IGNORED).sum()
            known_labels = labels.masked_fill(labels == IGNORED, 0)
        ranges = {
            "id": input_ids,
            "position": position_ids,
            "type": token_type_ids,
            "label": known_labels,
            "target": target_ids,
        }
        for name, values in ranges.items():
            if values is not None:
                facts |= {f"min_{name}": values.min(), f"max_{name}": values.max()}
        if not facts:
            return cls()
        numbers = torch.stack([fact.long() for fact in facts.values()]).tolist()
        return cls(**dict(zip(facts, numbers, strict=True)))

    def check_masks(self) -> None:
        """Raises LongformerError, one sentence, when a mask cannot be understood."""
        if self.invalid_attention_mask:
            raise LongformerError("attention_mask must hold 1 for tokens and 0 for padding, and nothing else")
        if self.invalid_global_mask:
            raise LongformerError(
                "global_attention_mask must hold 1 for global tokens and 0 for the others, and nothing else "
                "(the older convention of one mask with 0, 1 and 2 is two masks here)"
            )
        if self.global_padding:
            raise LongformerError("global_attention_mask is 1 at a padded position (where attention_mask is 0)")

    def check_ids(self, vocabulary: int) -> None:
        """Raises LongformerError, one sentence, when a token id lies outside a vocabulary of this size."""
        check_range(self.min_id, self.max_id, vocabulary)

    def check_labels(self, vocabulary: int) -> None:
        """Raises LongformerError, one sentence, when a label is neither a token of the vocabulary nor IGNORED."""
        check_range(self.min_label, self.max_label, vocabulary)

    def check_target(self, vocabulary: int) -> None:
        """Raises LongformerError, one sentence, when a decoder cannot take what it is given."""
        if self.invalid_target_mask:
            raise LongformerError("decoder_attention_mask must hold 1 for tokens and 0 for padding, and nothing else")
        check_range(self.min_target, self.max_target, vocabulary)

    def check(self, config: LongformerConfig) -> None:
        """Raises LongformerError, one sentence, when a Longformer encoder cannot take the batch."""
        self.check_masks()
        self.check_ids(config.vocab_size)
        if self.min_type < 0 or self.max_type >= config.type_vocab_size:
            wrong = self.min_type if self.min_type < 0 else self.max_type
            raise LongformerError(
                f"token_type_ids holds {wrong}; the model knows the types 0 to {config.type_vocab_size - 1}"
            )
        if self.min_position < 0:
            raise LongformerError(f"position_ids holds {self.min_position}; positions are not negative")
        if self.max_position >= config.max_position_embeddings:
            needed = self.max_position - config.pad_token_id
            raise LongformerError(
                f"the text reaches token {needed}, the model has positions for {config.max_tokens}: shorten the text, "
                f"or convert the model to longer texts (longformer convert ... --max-length {needed})"
            )


def check_range(lowest: int, highest: int, vocabulary: int) -> None:
    """Raises LongformerError, one sentence, when not all token ids are in a vocabulary of this size."""
    if lowest < 0 or highest >= vocabulary:
        wrong = lowest if lowest < 0 else highest
        raise LongformerError(
            f"token id {wrong} is outside the vocabulary of {vocabulary}; was the text tokenized for another model?"
        )


def tokens_of(attention_mask: Tensor | None, document_ids: Tensor | None) -> Tensor:
    """Returns (batch, positions) bool, False for padding; one of both is given."""
    if attention_mask is not None:
        return attention_mask != 0
    assert document_ids is not None
    return torch.ones_like(document_ids, dtype=torch.bool)


def first_tokens(is_token: Tensor, document_ids: Tensor | None) -> Tensor:
    """Returns the first tokens of sequences, (batch, positions) bool: behind no token, or one of another document."""
    follows = is_token[:, :-1]
    if document_ids is not None:
        follows = follows & (document_ids[:, 1:] == document_ids[:, :-1])
    return is_token & ~functional.pad(follows, (1, 0))


def count_from(is_first: Tensor, counted: Tensor) -> Tensor:
    """Returns how many are `counted` since the last first token, this position included; all (batch, positions)."""
    count = counted.cumsum(1)
    return count - torch.where(is_first, count - counted.long(), 0).cummax(1).values


def has_invalid_values(mask: Tensor) -> Tensor:
    """Returns whether a mask holds anything but 0 and 1."""
    return ((mask != 0) & (mask != 1)).any()


def is_constant(padding: Tensor, values: Tensor) -> Tensor:
    """Returns whether `values` are the same wherever `padding` is True."""
    first = values.take(padding.flatten().to(torch.uint8).argmax())  # an index of one number would be read
    return ~(padding & (values != first)).any()


# Taking padding out costs a copy of the first hidden states and of the last ones, and global attention that compares
# the global tokens of every text with all texts.
PADDING_WORTH_REMOVING = 0.1


@dataclass(frozen=True)
class ModelInputs:
    """A checked batch."""

    tokens: AttentionMetadata
    position_ids: Tensor
    """(batch, positions) long."""
    token_type_ids: Tensor
    """(batch, positions) long."""
    input_ids: Tensor | None
    """(batch, positions) long, or None when embeddings were given."""
    inputs_embeds: Tensor | None
    """(batch, positions, hidden_size), or None when ids were given."""


@dataclass(frozen=True)
class EncoderTensors:
    """What a Longformer encoder is given, with positions and types for every token."""

    input_ids: Tensor | None
    attention_mask: Tensor | None
    global_attention_mask: Tensor | None
    token_type_ids: Tensor
    position_ids: Tensor
    inputs_embeds: Tensor | None
    document_ids: Tensor | None

    @classmethod
    def of(
        cls,
        config: LongformerConfig,
        *,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        global_attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        document_ids: Tensor | None,
    ) -> Self:
        """Completes arguments of `LongformerModel.forward`.

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds are given, or a shape does not fit.
        """
        shape, device = input_shape(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            document_ids=document_ids,
        )
        if token_type_ids is None:
            token_type_ids = torch.zeros(shape, dtype=torch.long, device=device)
        if position_ids is None:
            is_first = None
            if document_ids is not None:
                is_first = first_tokens(tokens_of(attention_mask, document_ids), document_ids)
            position_ids = default_positions(input_ids, shape, config.pad_token_id, device, is_first)
        return cls(
            input_ids,
            attention_mask,
            global_attention_mask,
            for_every_sample("token_type_ids", token_type_ids, shape),
            for_every_sample("position_ids", position_ids, shape),
            inputs_embeds,
            document_ids,
        )

    def facts(self, labels: Tensor | None = None) -> BatchFacts:
        """Returns what must be known on the host about these tensors, and labels of theirs."""
        return BatchFacts.of(
            attention_mask=self.attention_mask,
            global_attention_mask=self.global_attention_mask,
            input_ids=self.input_ids,
            position_ids=self.position_ids,
            token_type_ids=self.token_type_ids,
            document_ids=self.document_ids,
            labels=labels,
        )


def read_inputs(
    config: LongformerConfig, given: EncoderTensors, facts: BatchFacts | None, *, output_attentions: bool
) -> ModelInputs:
    """Checks a batch and describes it; without its facts they are read.

    Raises:
        ValueError: attention probabilities are asked for between documents that do not see each other.
        LongformerError: ids, positions or masks hold values that the model cannot take.
    """
    facts = given.facts() if facts is None else facts
    facts.check(config)
    if given.document_ids is not None and output_attentions:
        raise ValueError("output_attentions cannot be combined with document_ids")
    tokens = describe_tokens(
        given.attention_mask,
        given.global_attention_mask,
        given.document_ids,
        facts,
        removable=bool(facts.padding_is_constant) and not output_attentions,
    )
    return ModelInputs(tokens, given.position_ids, given.token_type_ids, given.input_ids, given.inputs_embeds)


def input_shape(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, *, prefix: str = "", **masks: Tensor | None
) -> tuple[torch.Size, torch.device]:
    """Returns (batch, positions) and the device of what is to be read.

    Args:
        prefix: of the arguments' names.
        masks: by name, (batch, positions).

    Raises:
        ValueError: not exactly one of both is given, or a shape does not fit.
    """
    given = inputs_embeds if input_ids is None else input_ids
    if given is None or (input_ids is not None and inputs_embeds is not None):
        raise ValueError(f"give either {prefix}input_ids or {prefix}inputs_embeds")
    if given.dim() != (3 if input_ids is None else 2) or not given.numel():
        raise ValueError(
            f"{prefix}input_ids must be (batch, positions), {prefix}inputs_embeds (batch, positions, width), "
            f"and not empty; got {tuple(given.shape)}"
        )
    shape = given.shape[:2]
    for name, mask in masks.items():
        if mask is not None and mask.shape != shape:
            raise ValueError(f"{name} must be (batch, positions), {tuple(shape)}, got {tuple(mask.shape)}")
    return shape, given.device


def for_every_sample(name: str, ids: Tensor, shape: torch.Size) -> Tensor:
    """Returns (batch, positions) ids; (positions,) and (1, positions) count for all samples.

    Raises:
        ValueError: `ids`, called `name`, have another shape.
    """
    if ids.shape not in (shape, (1, shape[1]), (shape[1],)):
        raise ValueError(f"{name} must be (batch, positions), {tuple(shape)}, got {tuple(ids.shape)}")
    return ids.expand(shape)


def describe_tokens(
    attention_mask: Tensor | None,
    global_attention_mask: Tensor | None,
    document_ids: Tensor | None,
    facts: BatchFacts,
    *,
    removable: bool,
) -> AttentionMetadata:
    """Returns what layers must know about a checked batch.

    Padding is taken out where it is worth it and `removable` allows; not where it stands between the tokens of a text,
    which would move together. Documents are packed always, and then one padded position stands for all.
    """
    token_mask = global_tokens = packing = global_mask = None
    if global_attention_mask is not None and facts.max_globals:
        global_mask = global_attention_mask.bool()
    if attention_mask is not None and facts.padded:
        token_mask = attention_mask.bool()
        positions = attention_mask.numel()
        removable = removable and not facts.has_holes and facts.padded >= PADDING_WORTH_REMOVING * positions
    if facts.sequences and (document_ids is not None or (token_mask is not None and removable)):
        is_token = tokens_of(attention_mask, document_ids)
        packing = Packing.of(
            is_token,
            first_tokens(is_token, document_ids),
            tokens=is_token.numel() - facts.padded,
            sequences=facts.sequences,
            max_seqlen=facts.max_seqlen,
        )
        token_mask = None
        global_mask = None if global_mask is None else packing.pack(global_mask)[None]
    if global_mask is not None:
        cu_seqlens = None if packing is None else packing.cu_seqlens
        global_tokens = GlobalTokens.of(global_mask, facts.max_globals, facts.globals, cu_seqlens)
    return AttentionMetadata(token_mask, global_tokens, packing)


def default_positions(
    input_ids: Tensor | None, shape: torch.Size, padding_id: int, device: torch.device, is_first: Tensor | None = None
) -> Tensor:
    """Returns Hugging Face's position ids: tokens count from padding_id + 1 on, padding stands at padding_id.

    Without ids every position counts as a token. With the first tokens of documents, (batch, positions) bool, every
    document counts anew.
    """
    is_token = torch.ones(shape, dtype=torch.bool, device=device) if input_ids is None else input_ids != padding_id
    count = is_token.cumsum(1) if is_first is None else count_from(is_first, is_token)
    return count * is_token + padding_id
