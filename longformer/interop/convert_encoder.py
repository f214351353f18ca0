"""RoBERTa, XLM-R, BERT and ELECTRA encoders become Longformers (semantics.md 2.1), their heads too where one fits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.interop.conversion import (
    Conversion,
    LongModel,
    architecture_of,
    attention_window,
    check_rows,
    copy_to_global,
    equal_length,
    repeated_rows,
)
from longformer.interop.families import LONGFORMER
from longformer.interop.fitting import without_copies
from longformer.interop.huggingface import BASE, BASE_MODULES, config_from_json, config_to_json, current_names
from longformer.interop.sources import ENCODERS, EncoderFamily, check_convertible, heads_of, number, padding_of, setting
from longformer.interop.tokenizer import open_content, with_tokens
from longformer.models.longformer.config import LongformerConfig

POSITIONS = f"{BASE}embeddings.position_embeddings.weight"
WORDS = f"{BASE}embeddings.word_embeddings.weight"
_HEADS = (
    "MaskedLM",
    "SequenceClassification",
    "QuestionAnswering",
    "TokenClassification",
    "MultipleChoice",
    "CandidateSelection",
    "MultiHopAnswers",
    "Coreference",
)


def longformer_of(
    saved: Mapping[str, Tensor], settings: Mapping[str, Any], source: Path, *, max_length: int, window: int | None
) -> LongModel:
    """Returns the Longformer that an encoder becomes.

    Args:
        saved: the encoder's tensors.
        settings: its config.json.
        source: where both were read.
        max_length, window: as in `convert`.

    Raises:
        LongformerError: the encoder cannot be converted.
        ValueError: max_length is less than what the source reads.
    """
    family = ENCODERS[settings["model_type"]]
    check_convertible(settings)
    tensors, left_out = longformer_names(saved, settings)
    tensors = current_names(tensors)
    if setting(settings, "tie_word_embeddings", True):
        tensors = without_copies(tensors, LONGFORMER.tied)
    if POSITIONS not in tensors:
        raise LongformerError(f"{source} has no table of positions ({POSITIONS.removeprefix(BASE)})")
    check_rows(settings, "max_position_embeddings", tensors[POSITIONS])

    config = long_config(settings, max_length=max_length, window=window)
    padding = config.pad_token_id
    copied = sorted(tensors.keys() - {POSITIONS})
    known = len(tensors[POSITIONS]) - (padding + 1 if family.counts_from_padding else 0)
    tensors[POSITIONS] = extended_positions(tensors[POSITIONS], family, padding=padding, max_length=max_length)
    initialised = copy_to_global(tensors)
    has_head = any(not name.startswith(BASE) for name in tensors)
    architecture = architecture_of(settings) if has_head else "Model"
    return LongModel(
        config_to_json(config, architecture=longformer_architecture(architecture), dtype=tensors[POSITIONS].dtype),
        tensors,
        tokenizer_class=family.tokenizer,
        new_rows=max_length - known,
        report=Conversion(
            copied, [POSITIONS], initialised, left_out, equal_length(settings, known=known, window=window)
        ),
    )


def with_added_tokens(made: LongModel, tokenizer: str, tokens: Sequence[str], *, seed: int) -> LongModel:
    """Returns an encoder whose table of words has rows for tokens that a tokenizer is to get.

    New rows are drawn from a normal distribution with the mean and deviation of all others.

    Args:
        made: the encoder.
        tokenizer: content of its tokenizer.json.
        tokens: those that it has already keep their rows.
        seed: of the draw.
    """
    known, grown = open_content(tokenizer), open_content(with_tokens(tokenizer, tokens))
    table = made.tensors[WORDS]
    rows = max(len(table), grown.get_vocab_size())
    new = {grown.token_to_id(token) for token in tokens if known.token_to_id(token) is None}
    fresh = sorted({*range(len(table), rows), *new})
    mean, deviation = table.float().mean().item(), table.float().std().item()
    drawn = torch.normal(mean, deviation, (len(fresh), table.shape[1]), generator=torch.Generator().manual_seed(seed))
    words = torch.cat([table, table.new_zeros(rows - len(table), table.shape[1])])
    words[fresh] = drawn.to(table.dtype)
    settings = {**made.settings, "vocab_size": rows}
    return replace(made, settings=settings, tensors={**made.tensors, WORDS: words})


def longformer_names(saved: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors that a Longformer has a place for, under its names, and the names of the others."""
    heads, prefix = heads_of(settings), ENCODERS[settings["model_type"]].prefix
    tensors, left_out = {}, []
    for name, tensor in saved.items():
        bare = name.removeprefix(prefix)
        head = next((head for head in heads if name.startswith(f"{head}.") or name == head), None)
        if bare.startswith(BASE_MODULES) and not bare.endswith("position_ids"):
            tensors[BASE + bare] = tensor
        elif head is not None:
            tensors[heads[head] + name.removeprefix(head)] = tensor
        else:
            left_out.append(name)
    return tensors, sorted(left_out)


def extended_positions(table: Tensor, family: EncoderFamily, *, padding: int, max_length: int) -> Tensor:
    """Returns a position table for max_length tokens that repeats the source's rows block by block.

    The rows up to padding, which no token uses, are copied too where the source has them.
    """
    first = padding + 1 if family.counts_from_padding else 0
    reserved = table[:first] if first else table[:1].expand(padding + 1, -1)
    return torch.cat([reserved, repeated_rows(table, first=first, max_length=max_length)])


def long_config(settings: Mapping[str, Any], *, max_length: int, window: int | None) -> LongformerConfig:
    """Returns the config of the model that an encoder becomes; arguments as in `longformer_of`."""
    padding = padding_of(settings)
    return config_from_json(
        {
            **settings,
            "model_type": "longformer",
            "pad_token_id": padding,
            "sep_token_id": setting(settings, "sep_token_id", setting(settings, "eos_token_id", 2)),
            **attention_window(window, layers=number(settings, "num_hidden_layers")),
            # The rows up to padding's belong to no token.
            "max_position_embeddings": max_length + padding + 1,
        },
        LongformerConfig,
    )


def longformer_architecture(architecture: str) -> str:
    """Returns the Longformer class that stands for a class of another family."""
    for task in _HEADS:
        if architecture.endswith(f"For{task}"):
            return f"LongformerFor{task}"
    return "LongformerForMaskedLM" if architecture.endswith("ForPreTraining") else "LongformerModel"
