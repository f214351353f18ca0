"""Hugging Face's names, both ways: parameters (spec 1.6) and config.json (spec 1.7), older layouts included.

Our modules are nested and named as theirs. The one difference: we keep the local projections of query, key and
value as one tensor, they as three.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.models.longformer_config import LongformerConfig

PACKED = "query_key_value"
PARTS = ("query", "key", "value")
BASE = "longformer."
BASE_MODULES = ("embeddings.", "encoder.", "pooler.")


def unpack_projections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors under their names: one packed projection becomes three (views)."""
    result = {}
    for name, tensor in tensors.items():
        if f".{PACKED}." not in name:
            result[name] = tensor
            continue
        for part, piece in zip(PARTS, tensor.chunk(3), strict=True):
            result[name.replace(PACKED, part)] = piece
    return result


def pack_projections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `unpack_projections`; all three projections of a layer must be there."""
    result = dict(tensors)
    for name in tensors:
        if ".query." in name:
            pieces = [result.pop(name.replace(".query.", f".{part}.")) for part in PARTS]
            result[name.replace(".query.", f".{PACKED}.")] = torch.cat(pieces)
    return result


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of any known layout to those of a Hugging Face model with a head.

    Known are that layout itself, the bare encoder without a prefix, allenai's original (`roberta.` or no prefix), and
    the leftovers of older versions: position_ids and a second copy of the masked-LM bias.
    """
    result = {}
    for name, tensor in tensors.items():
        if name.endswith("embeddings.position_ids"):
            continue
        if name.startswith("roberta."):
            name = BASE + name.removeprefix("roberta.")
        elif name.startswith(BASE_MODULES):
            name = BASE + name
        result[name] = tensor
    second_bias = result.pop("lm_head.decoder.bias", None)
    if second_bias is not None:
        result.setdefault("lm_head.bias", second_bias)
    return result


def config_from_json(values: Mapping[str, Any]) -> LongformerConfig:
    """Return the config that a config.json describes.

    Allenai's original code counts one side of the window; such files are told by attention_mode beside a model_type
    that is not longformer.

    Raises:
        LongformerError: the config belongs to another family, or asks for something this encoder does not do.
    """
    values = dict(values)
    family = values.pop("model_type", None)
    if family != "longformer":
        if family not in (None, "roberta") or "attention_mode" not in values:
            raise LongformerError(
                f"config.json describes a model of the family {family or 'unknown'}, not a longformer; "
                "longformer convert makes one of RoBERTa, XLM-R, BERT and ELECTRA models"
            )
        values["attention_window"] = [2 * side for side in values.get("attention_window", [])]
    check_pattern(values)
    labels = values.get("id2label")
    if labels and "num_labels" not in values:
        values["num_labels"] = len(labels)
    known = {field.name for field in dataclasses.fields(LongformerConfig)} - {"other"}
    fields = {
        name: value for name, value in values.items() if name in known and (value is not None or name == "problem_type")
    }
    try:
        return LongformerConfig(**fields, other={name: values[name] for name in values.keys() - known})
    except (TypeError, ValueError) as error:
        raise LongformerError(f"config.json is not a valid Longformer config: {error}") from error


def check_pattern(values: Mapping[str, Any]) -> None:
    """Raise LongformerError when a config of allenai's code asks for another pattern than Longformer's encoder."""
    if values.get("attention_mode", "longformer") not in ("longformer", "tvm", "sliding_chunks"):
        raise LongformerError(f"attention_mode {values['attention_mode']!r} is another pattern than the sliding window")
    if values.get("autoregressive"):
        raise LongformerError("autoregressive is set, but this encoder looks both ways")
    if set(values.get("attention_dilation", ())) - {1}:
        raise LongformerError("attention_dilation is set, but this encoder has no dilation")


def config_to_json(config: LongformerConfig, *, architecture: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of config.json, as Hugging Face reads it."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    other = values.pop("other")
    labels = values.pop("num_labels")
    values["attention_window"] = list(values["attention_window"])
    # Only what allenai's code wrote about its own kernels; the window is a total now.
    other = {
        name: value
        for name, value in other.items()
        if name not in ("attention_mode", "attention_dilation", "autoregressive")
    }
    if len(other.get("id2label", {})) != labels:
        other["id2label"] = {str(index): f"LABEL_{index}" for index in range(labels)}
        other["label2id"] = {f"LABEL_{index}": index for index in range(labels)}
    other |= {"model_type": "longformer", "architectures": [architecture], "dtype": str(dtype).removeprefix("torch.")}
    return dict(sorted((values | other).items()))
