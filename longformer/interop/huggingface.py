"""Hugging Face's names, both ways: parameters and config.json (semantics.md 1.5, 1.6), older layouts included.

Our modules are nested and named as theirs. The one difference: projections that read the same tensor are one with us
(see `PACKINGS`), one each with them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.models.common.config import WindowedConfig
from longformer.models.led.config import LEDConfig
from longformer.models.longformer.config import LongformerConfig

Config = TypeVar("Config", bound=WindowedConfig)

# By the model_type that allenai's original code wrote, that of the model it derives from.
ORIGINALS = {None: LongformerConfig, "roberta": LongformerConfig, "bart": LEDConfig}
CONVERTIBLE: dict[type[WindowedConfig], str] = {
    LongformerConfig: "RoBERTa, XLM-R, BERT and ELECTRA",
    LEDConfig: "BART and mBART",
}
# Hugging Face's other names for fields of an LED.
LED_ALIASES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "init_std",
}

PARTS = ("query", "key", "value")
# Which of their modules one of ours holds one after another; by its name and its parent's.
PACKINGS = {
    "self.query_key_value": PARTS,
    "longformer_self_attn.query_key_value": PARTS,
    "self_attn.query_key_value": ("q_proj", "k_proj", "v_proj"),
    "encoder_attn.key_value": ("k_proj", "v_proj"),
}
BASE = "longformer."
BASE_MODULES = ("embeddings.", "encoder.", "pooler.")
LED_BASE = "led."
LED_BASE_MODULES = ("shared.", "encoder.", "decoder.")
# Rows of the original LED's position tables that no token uses.
UNUSED_POSITIONS = 2


def unpack_projections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns our tensors under their names: one packed projection becomes several (views)."""
    result = {}
    for name, tensor in tensors.items():
        module, parent, packed, attribute = split_name(name)
        parts = PACKINGS.get(f"{parent}.{packed}")
        if parts is None:
            result[name] = tensor
            continue
        for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
            result[f"{module}.{parent}.{part}.{attribute}"] = piece
    return result


def pack_projections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undoes `unpack_projections`; all projections that belong together must be there."""
    result = dict(tensors)
    for name in tensors:
        module, parent, part, attribute = split_name(name)
        for place, parts in PACKINGS.items():
            if parts[0] == part and place.startswith(f"{parent}."):
                pieces = [result.pop(f"{module}.{parent}.{each}.{attribute}") for each in parts]
                result[f"{module}.{place}.{attribute}"] = torch.cat(pieces)
    return result


def split_name(name: str) -> tuple[str, ...]:
    """Returns the path of a tensor's grandparent, the names of its parent, its module and itself; "" where none."""
    return ("", "", "", *name.rsplit(".", 3))[-4:]


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of any known layout to those of a Hugging Face model with a head.

    Known are that layout itself, the bare encoder without a prefix, allenai's original (`roberta.` or no prefix, and
    `model.` in the checkpoints of its tasks), and the leftovers of older versions: position_ids and a second copy of
    the masked-LM bias.
    """
    result = {}
    for name, tensor in tensors.items():
        if name.endswith("embeddings.position_ids"):
            continue
        if name.startswith(("roberta.", "model.")):
            name = BASE + name.partition(".")[2]
        elif name.startswith(BASE_MODULES):
            name = BASE + name
        result[name] = tensor
    second_bias = result.pop("lm_head.decoder.bias", None)
    if second_bias is not None:
        result.setdefault("lm_head.bias", second_bias)
    return result


def current_led_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of any known layout to those of a Hugging Face LED with a head.

    Known are that layout itself, the bare model without a prefix, and allenai's original (`model.`), whose position
    tables begin with rows that no token uses.
    """
    result = {}
    for name, tensor in tensors.items():
        if name.startswith("model."):
            name = LED_BASE + name.removeprefix("model.")
            if name.endswith("embed_positions.weight"):
                tensor = tensor[UNUSED_POSITIONS:]
        elif name.startswith(LED_BASE_MODULES):
            name = LED_BASE + name
        result[name] = tensor
    return result


def config_from_json(values: Mapping[str, Any], kind: type[Config]) -> Config:
    """Returns the config that a config.json describes.

    Allenai's original code counts one side of the window; such files are told by attention_mode beside the model_type
    of the model that theirs derives from.

    Args:
        kind: the config of the family that is expected; see `config_class`.

    Raises:
        LongformerError: the config belongs to another family, or asks for something these models do not do.
    """
    if config_class(values) is not kind:
        found, sources = values.get("model_type") or "unknown", CONVERTIBLE[kind]
        raise LongformerError(
            f"config.json describes a model of the family {found}, not {kind.family}; "
            f"longformer convert makes a {kind.family} of {sources} models"
        )
    original = values.get("model_type") in ORIGINALS
    values = own_keys(values, kind)
    if original:
        values["attention_window"] = [2 * side for side in values.get("attention_window", [])]
    check_pattern(values)
    labels = values.get("id2label")
    if labels and "num_labels" not in values:
        values["num_labels"] = len(labels)
    known = {field.name for field in dataclasses.fields(kind)} - {"other"}
    fields = {
        name: value for name, value in values.items() if name in known and (value is not None or name == "problem_type")
    }
    for each in dataclasses.fields(kind):
        if each.type in (int, float) and isinstance(fields.get(each.name), str):
            raise LongformerError(f"config.json says {each.name} is {fields[each.name]!r}, which is no number")
    try:
        return kind(**fields, other={name: values[name] for name in values.keys() - known})
    except (TypeError, ValueError) as error:
        raise LongformerError(f"config.json is not a valid {kind.__name__}: {error}") from error


def config_class(values: Mapping[str, Any]) -> type[LongformerConfig] | type[LEDConfig] | None:
    """Returns the class of the config that a config.json describes; None: it belongs to another family."""
    family = values.get("model_type")
    for kind in (LongformerConfig, LEDConfig):
        if family is not None and family in (kind.family, kind.extended_family):
            return kind
    return ORIGINALS.get(family) if "attention_mode" in values else None


def own_keys(values: Mapping[str, Any], kind: type[WindowedConfig]) -> dict[str, Any]:
    """Returns the content of a config.json without its second names for one thing, and without model_type."""
    aliases = LED_ALIASES if kind is LEDConfig else {}
    own = {aliases[name]: value for name, value in values.items() if name in aliases}
    return own | {name: value for name, value in values.items() if name not in aliases and name != "model_type"}


def check_pattern(values: Mapping[str, Any]) -> None:
    """Raises LongformerError when a config of allenai's code asks for another pattern than Longformer's encoder."""
    if values.get("attention_mode", "longformer") not in ("longformer", "tvm", "sliding_chunks"):
        raise LongformerError(f"attention_mode {values['attention_mode']!r} is another pattern than the sliding window")
    if values.get("autoregressive"):
        raise LongformerError("autoregressive is set, but this encoder looks both ways")
    if set(values.get("attention_dilation", ())) - {1}:
        raise LongformerError("attention_dilation is set, but this encoder has no dilation")


def config_to_json(config: WindowedConfig, *, architecture: str, dtype: torch.dtype) -> dict[str, Any]:
    """Returns the content of config.json, as Hugging Face reads it."""
    dtype_name = str(dtype).removeprefix("torch.")
    return dict(sorted((config.to_dict() | {"architectures": [architecture], "dtype": dtype_name}).items()))
