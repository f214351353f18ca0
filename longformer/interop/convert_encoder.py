"""RoBERTa, XLM-R, BERT and ELECTRA encoders become Longformers (spec 2.1), their heads too where one fits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.interop.conversion import (
    Conversion,
    LongModel,
    architecture_of,
    check_rows,
    copy_to_global,
    equal_length,
    repeated_rows,
    setting,
)
from longformer.interop.families import LONGFORMER
from longformer.interop.fitting import without_copies
from longformer.interop.huggingface import BASE, BASE_MODULES, config_from_json, config_to_json, current_names
from longformer.models.longformer.config import LongformerConfig

POSITIONS = f"{BASE}embeddings.position_embeddings.weight"


@dataclass(frozen=True)
class Family:
    """What sets a family of encoders apart."""

    prefix: str
    """Stands before the names of the encoder's tensors in a model with a head."""
    counts_from_padding: bool
    """Whether the first token stands at position pad_token_id + 1 (RoBERTa) or at 0 (BERT)."""
    tokenizer: str
    """Class of its tokenizer, for checkpoints that leave it to the family's name."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """Its names of modules that a Longformer head has too, and theirs."""
    head_uses_hidden_act: bool = False
    """Whether its masked-LM head has the encoder's activation; a Longformer's always has gelu."""


ROBERTA_HEADS = {name: name for name in ("lm_head", "classifier", "qa_outputs")}
FAMILIES = {
    "roberta": Family("roberta.", True, "RobertaTokenizer", ROBERTA_HEADS),
    "xlm-roberta": Family("roberta.", True, "XLMRobertaTokenizer", ROBERTA_HEADS),
    "longformer": Family("longformer.", True, "LongformerTokenizer", ROBERTA_HEADS),
    "bert": Family(
        "bert.",
        False,
        "BertTokenizer",
        {
            "cls.predictions.transform.dense": "lm_head.dense",
            "cls.predictions.transform.LayerNorm": "lm_head.layer_norm",
            "cls.predictions.decoder": "lm_head.decoder",
            "cls.predictions.bias": "lm_head.bias",
            "qa_outputs": "qa_outputs",
        },
        head_uses_hidden_act=True,
    ),
    "electra": Family(
        "electra.",
        False,
        "ElectraTokenizer",
        {
            "generator_predictions.dense": "lm_head.dense",
            "generator_predictions.LayerNorm": "lm_head.layer_norm",
            "generator_lm_head": "lm_head.decoder",
            "qa_outputs": "qa_outputs",
        },
    ),
}


def longformer_of(
    saved: Mapping[str, Tensor], settings: Mapping[str, Any], source: Path, *, max_length: int, window: int
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
    family = FAMILIES[settings["model_type"]]
    check_convertible(settings)
    tensors, left_out = longformer_names(saved, settings, family)
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


def check_convertible(settings: Mapping[str, Any]) -> None:
    """Raises LongformerError where a source does what a Longformer cannot."""
    if setting(settings, "position_embedding_type", "absolute") != "absolute":
        raise LongformerError(f"position_embedding_type {settings['position_embedding_type']!r} cannot be converted")
    if setting(settings, "embedding_size", settings["hidden_size"]) != settings["hidden_size"]:
        raise LongformerError(
            f"the source projects embeddings of size {settings['embedding_size']} to {settings['hidden_size']}; "
            "a Longformer has no such projection"
        )
    if settings.get("is_decoder"):
        raise LongformerError("the source is a decoder; a Longformer encoder looks both ways")


def source_length(settings: Mapping[str, Any]) -> int:
    """Returns how many tokens an encoder reads, from its config.json."""
    family = FAMILIES[settings["model_type"]]
    return int(settings["max_position_embeddings"]) - (padding_of(settings) + 1 if family.counts_from_padding else 0)


def padding_of(settings: Mapping[str, Any]) -> int:
    """Returns the id of the padding token."""
    return int(setting(settings, "pad_token_id", 1 if FAMILIES[settings["model_type"]].counts_from_padding else 0))


def longformer_names(
    saved: Mapping[str, Tensor], settings: Mapping[str, Any], family: Family
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors that a Longformer has a place for, under its names, and the names of the others."""
    heads = family.heads
    if family.head_uses_hidden_act and setting(settings, "hidden_act", "gelu") != "gelu":
        heads = {theirs: ours for theirs, ours in heads.items() if not ours.startswith("lm_head")}
    tensors, left_out = {}, []
    for name, tensor in saved.items():
        bare = name.removeprefix(family.prefix)
        head = next((head for head in heads if name.startswith(f"{head}.") or name == head), None)
        if bare.startswith(BASE_MODULES) and not bare.endswith("position_ids"):
            tensors[BASE + bare] = tensor
        elif head is not None:
            tensors[heads[head] + name.removeprefix(head)] = tensor
        else:
            left_out.append(name)
    return tensors, sorted(left_out)


def extended_positions(table: Tensor, family: Family, *, padding: int, max_length: int) -> Tensor:
    """Returns a position table for max_length tokens that repeats the source's rows block by block.

    The rows up to padding, which no token uses, are copied too where the source has them.
    """
    first = padding + 1 if family.counts_from_padding else 0
    reserved = table[:first] if first else table[:1].expand(padding + 1, -1)
    return torch.cat([reserved, repeated_rows(table, first=first, max_length=max_length)])


def long_config(settings: Mapping[str, Any], *, max_length: int, window: int) -> LongformerConfig:
    """Returns the config of the model that an encoder becomes; arguments as in `longformer_of`."""
    padding = padding_of(settings)
    return config_from_json(
        {
            **settings,
            "model_type": "longformer",
            "pad_token_id": padding,
            "sep_token_id": setting(settings, "sep_token_id", setting(settings, "eos_token_id", 2)),
            "attention_window": [window] * settings["num_hidden_layers"],
            # The rows up to padding's belong to no token.
            "max_position_embeddings": max_length + padding + 1,
        },
        LongformerConfig,
    )


def longformer_architecture(architecture: str) -> str:
    """Returns the Longformer class that stands for a class of another family."""
    for task in ("MaskedLM", "SequenceClassification", "QuestionAnswering", "TokenClassification", "MultipleChoice"):
        if architecture.endswith(f"For{task}"):
            return f"LongformerFor{task}"
    return "LongformerForMaskedLM" if architecture.endswith("ForPreTraining") else "LongformerModel"
