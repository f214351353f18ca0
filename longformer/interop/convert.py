"""Long models out of short ones: RoBERTa, XLM-R, BERT and ELECTRA encoders become Longformers (spec 2.1).

Nothing is learnt here. Positions beyond the source's table repeat it block by block, global projections start as
copies of the local ones; where every token sees every other, the new model equals its source.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.files import write_json
from longformer.interop.checkpoint_files import CONFIG_FILE, read_json, read_tensors, write_folder
from longformer.interop.huggingface import BASE, BASE_MODULES, PARTS, config_from_json, config_to_json, current_names
from longformer.models.longformer_config import LongformerConfig

POSITIONS = f"{BASE}embeddings.position_embeddings.weight"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    TOKENIZER_CONFIG,
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
)


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
    """Its names of modules that a Longformer head has under another name."""


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
        },
    ),
    "electra": Family(
        "electra.",
        False,
        "ElectraTokenizer",
        {
            "generator_predictions.dense": "lm_head.dense",
            "generator_predictions.LayerNorm": "lm_head.layer_norm",
            "generator_lm_head": "lm_head.decoder",
        },
    ),
}


@dataclass(frozen=True)
class Conversion:
    """What became of every tensor, by name."""

    copied: list[str]
    extended: list[str]
    """The position table, whose rows repeat."""
    initialised: list[str]
    """Global projections, copies of the local ones."""
    left_out: list[str]
    """Tensors of the source that a Longformer has no place for."""


def convert(source: Path, target: Path, *, max_length: int, window: int) -> Conversion:
    """Write a Longformer made of another encoder, in Hugging Face's layout, its tokenizer beside it.

    Args:
        source: a folder of the families in `FAMILIES`; a Longformer becomes a longer one.
        target: a folder without a model.
        max_length: tokens that the new model reads, special ones included.
        window: neighbours that a token sees, both sides together.

    Raises:
        LongformerError: the source cannot be read or converted, or the target holds a model already.
        ValueError: max_length is less than what the source reads, or the window is not even and positive.
    """
    settings = read_json(source / CONFIG_FILE)
    name = settings.get("model_type")
    if name not in FAMILIES:
        raise LongformerError(f"{source} is a model of the family {name}; convert knows {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    check_convertible(settings)
    tensors, left_out = longformer_names(read_tensors(source), family)
    tensors = current_names(tensors)
    if settings.get("tie_word_embeddings", True):
        tensors.pop("lm_head.decoder.weight", None)
    if POSITIONS not in tensors:
        raise LongformerError(f"{source} has no table of positions ({POSITIONS.removeprefix(BASE)})")

    padding = settings.get("pad_token_id", 1 if family.counts_from_padding else 0)
    copied = sorted(tensors.keys() - {POSITIONS})
    tensors[POSITIONS] = extended_positions(tensors[POSITIONS], family, padding=padding, max_length=max_length)
    initialised = copy_to_global(tensors)
    config = new_config(settings, source, padding=padding, positions=len(tensors[POSITIONS]), window=window)
    has_head = any(not name.startswith(BASE) for name in tensors)
    architecture = settings.get("architectures", ["Model"])[0] if has_head else "Model"
    values = config_to_json(config, architecture=longformer_architecture(architecture), dtype=tensors[POSITIONS].dtype)
    write_folder(target, values, tensors)
    copy_tokenizer(source, target, family, max_length)
    return Conversion(copied, [POSITIONS], initialised, left_out)


def check_convertible(settings: Mapping[str, Any]) -> None:
    """Raise LongformerError where a source does what a Longformer cannot."""
    if settings.get("position_embedding_type", "absolute") != "absolute":
        raise LongformerError(f"position_embedding_type {settings['position_embedding_type']!r} cannot be converted")
    if settings.get("embedding_size", settings["hidden_size"]) != settings["hidden_size"]:
        raise LongformerError(
            f"the source projects embeddings of size {settings['embedding_size']} to {settings['hidden_size']}; "
            "a Longformer has no such projection"
        )
    if settings.get("is_decoder"):
        raise LongformerError("the source is a decoder; a Longformer encoder looks both ways")


def longformer_names(saved: Mapping[str, Tensor], family: Family) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors that a Longformer has a place for, under its names, and the names of the others."""
    tensors, left_out = {}, []
    for name, tensor in saved.items():
        bare = name.removeprefix(family.prefix)
        head = next((head for head in family.heads if name.startswith(f"{head}.") or name == head), None)
        if bare.startswith(BASE_MODULES) and not bare.endswith("position_ids"):
            tensors[BASE + bare] = tensor
        elif head is not None:
            tensors[family.heads[head] + name.removeprefix(head)] = tensor
        else:
            left_out.append(name)
    return tensors, sorted(left_out)


def extended_positions(table: Tensor, family: Family, *, padding: int, max_length: int) -> Tensor:
    """Return a position table for max_length tokens that repeats the source's rows block by block.

    The rows up to padding, which no token uses, are copied too where the source has them.
    """
    first = padding + 1 if family.counts_from_padding else 0
    known = table.shape[0] - first
    if max_length < known:
        raise ValueError(f"max_length must be at least the {known} tokens that the source reads, not {max_length}")
    repeated = table[first + torch.arange(max_length) % known]
    reserved = table[:first] if first else table[:1].expand(padding + 1, -1)
    return torch.cat([reserved, repeated])


def copy_to_global(tensors: dict[str, Tensor]) -> list[str]:
    """Add a copy of every local projection as the global one where there is none; return the new names."""
    new = {}
    for name, tensor in tensors.items():
        for part in PARTS:
            twin = name.replace(f".self.{part}.", f".self.{part}_global.")
            if twin != name and twin not in tensors:
                new[twin] = tensor.clone()
    tensors |= new
    return sorted(new)


def new_config(
    settings: Mapping[str, Any], source: Path, *, padding: int, positions: int, window: int
) -> LongformerConfig:
    """Return the config of the new model."""
    if window <= 0 or window % 2:
        raise ValueError(f"window must be even and positive, not {window}")
    separator = {} if settings.get("sep_token_id") is not None else {"sep_token_id": separator_of(settings, source)}
    return config_from_json(
        {
            **settings,
            **separator,
            "model_type": "longformer",
            "pad_token_id": padding,
            "attention_window": [window] * settings["num_hidden_layers"],
            "max_position_embeddings": positions,
        }
    )


def separator_of(settings: Mapping[str, Any], source: Path) -> int:
    """Return the id of the token between two texts: the vocabulary's [SEP], else the end of a text."""
    vocabulary = source / "vocab.txt"
    words = vocabulary.read_text(encoding="utf-8").split("\n") if vocabulary.is_file() else []
    if "[SEP]" in words:
        return words.index("[SEP]")
    end = settings.get("eos_token_id")
    return 2 if end is None else int(end)


def longformer_architecture(architecture: str) -> str:
    """Return the Longformer class that stands for a class of another family."""
    for task in ("MaskedLM", "SequenceClassification", "QuestionAnswering", "TokenClassification", "MultipleChoice"):
        if architecture.endswith(f"For{task}"):
            return f"LongformerFor{task}"
    return "LongformerForMaskedLM" if architecture.endswith("ForPreTraining") else "LongformerModel"


def copy_tokenizer(source: Path, target: Path, family: Family, max_length: int) -> None:
    """Copy the tokenizer, with the new limit and its class spelled out."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    config = read_json(target / TOKENIZER_CONFIG) if (target / TOKENIZER_CONFIG).is_file() else {}
    config.setdefault("tokenizer_class", family.tokenizer)
    write_json(target / TOKENIZER_CONFIG, {**config, "model_max_length": max_length})
