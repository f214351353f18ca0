"""The models that can be made long: what sets their families apart, and what their config.json tells before anything
that takes seconds is imported."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longformer.errors import LongformerError


@dataclass(frozen=True)
class EncoderFamily:
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
ENCODERS = {
    "roberta": EncoderFamily("roberta.", True, "RobertaTokenizer", ROBERTA_HEADS),
    "xlm-roberta": EncoderFamily("roberta.", True, "XLMRobertaTokenizer", ROBERTA_HEADS),
    "longformer": EncoderFamily(
        "longformer.",
        True,
        "LongformerTokenizer",
        {name: name for name in (*ROBERTA_HEADS, "candidate_score", "multi_hop", "coreference")},
    ),
    "bert": EncoderFamily(
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
    "electra": EncoderFamily(
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


@dataclass(frozen=True)
class EncoderDecoderFamily:
    """What sets a family of encoder-decoders apart."""

    prefix: str
    """Stands before the names of the model's tensors where it has a head."""
    tokenizer: str
    """Class of its tokenizer, for checkpoints that leave it to the family's name."""
    unused_positions: int
    """Rows at the start of both position tables that belong to no token; an LED has none."""
    normalizes_before: bool = False
    """Whether layers normalise what they read, not what they give, and each stack its result."""
    forced_end: int | None = None
    """The token that ends a text at its greatest length where config.json does not say."""
    start: int | None = None
    """The token that the decoder starts with where config.json does not say; None = the one that begins a text."""


ENCODER_DECODERS = {
    "bart": EncoderDecoderFamily("model.", "BartTokenizer", 2, forced_end=2, start=2),
    "mbart": EncoderDecoderFamily("model.", "MBartTokenizer", 2, normalizes_before=True, forced_end=2),
    "led": EncoderDecoderFamily("led.", "LEDTokenizer", 0, start=2),
    "longformer-led": EncoderDecoderFamily("led.", "MBartTokenizer", 0, start=2),
}


def setting(settings: Mapping[str, Any], name: str, default: Any) -> Any:
    """Returns what config.json says about something; null, as people's tools write it, says nothing."""
    value = settings.get(name)
    return default if value is None else value


def number(settings: Mapping[str, Any], name: str) -> int:
    """Returns what config.json must say about a size.

    Raises:
        LongformerError: it does not, or says something else than a number.
    """
    value = settings.get(name)
    if not isinstance(value, int):
        raise LongformerError(f"config.json must say {name}, a number, not {json.dumps(value)}")
    return value


def check_convertible(settings: Mapping[str, Any]) -> None:
    """Raises LongformerError where a source does what a Longformer cannot."""
    if setting(settings, "position_embedding_type", "absolute") != "absolute":
        raise LongformerError(f"position_embedding_type {settings['position_embedding_type']!r} cannot be converted")
    if settings.get("embedding_size") not in (None, number(settings, "hidden_size")):
        raise LongformerError(
            f"the source projects embeddings of size {settings['embedding_size']} to {settings['hidden_size']}; "
            "a Longformer has no such projection"
        )
    if settings.get("is_decoder"):
        raise LongformerError("the source is a decoder; a Longformer encoder looks both ways")


def source_length(settings: Mapping[str, Any]) -> int:
    """Returns how many tokens a model's encoder reads, from its config.json."""
    family = ENCODERS.get(settings["model_type"])
    if family is None:
        return int(setting(settings, "max_encoder_position_embeddings", settings.get("max_position_embeddings", 0)))
    return int(settings.get("max_position_embeddings", 0)) - (
        padding_of(settings) + 1 if family.counts_from_padding else 0
    )


def decoder_length(settings: Mapping[str, Any]) -> int | None:
    """Returns how many positions the decoder of a model has, from its config.json; None where that does not say."""
    known = setting(settings, "max_decoder_position_embeddings", settings.get("max_position_embeddings"))
    return None if known is None else int(known)


def heads_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the names of an encoder's modules that a Longformer head has too, and what they are called there."""
    family = ENCODERS[settings["model_type"]]
    fits = not family.head_uses_hidden_act or setting(settings, "hidden_act", "gelu") == "gelu"
    return {theirs: ours for theirs, ours in family.heads.items() if fits or not ours.startswith("lm_head")}


def padding_of(settings: Mapping[str, Any]) -> int:
    """Returns the id of the padding token."""
    return int(setting(settings, "pad_token_id", 1 if ENCODERS[settings["model_type"]].counts_from_padding else 0))


def check_length(known: int, max_length: int) -> None:
    """Raises ValueError where a model that reads `known` tokens would be made shorter."""
    if max_length < known:
        raise ValueError(f"max_length must be at least the {known} tokens that the source reads, not {max_length}")
