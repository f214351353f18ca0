"""BART and mBART become LEDs (semantics.md 2.2): a long encoder, and the decoder as it was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from longformer.interop.families import LED
from longformer.interop.fitting import without_copies
from longformer.interop.sources import ENCODER_DECODERS, EncoderDecoderFamily, number, setting
from longformer.models.led.config import LEDConfig

BASE_PARTS = ("shared.", "encoder.", "decoder.")
HEAD_PARTS = ("final_logits_bias", "lm_head.", "qa_outputs.")
ENCODER_POSITIONS = f"{LED.base}encoder.embed_positions.weight"
DECODER_POSITIONS = f"{LED.base}decoder.embed_positions.weight"
PROJECTIONS = {
    "self_attn.q_proj.": "self_attn.longformer_self_attn.query.",
    "self_attn.k_proj.": "self_attn.longformer_self_attn.key.",
    "self_attn.v_proj.": "self_attn.longformer_self_attn.value.",
    "self_attn.out_proj.": "self_attn.output.",
}


def led_of(
    saved: Mapping[str, Tensor], settings: Mapping[str, Any], source: Path, *, max_length: int, window: int | None
) -> LongModel:
    """Returns the LED that an encoder-decoder becomes.

    Args:
        saved: the source's tensors.
        settings: its config.json.
        source: where both were read.
        max_length, window: as in `convert`.

    Raises:
        LongformerError: the source lacks a table of positions.
        ValueError: max_length is less than what the source reads.
    """
    family = ENCODER_DECODERS[settings["model_type"]]
    tensors, left_out = led_names(saved, family)
    if setting(settings, "tie_word_embeddings", True):
        tensors = without_copies(tensors, LED.tied)
    for name in (ENCODER_POSITIONS, DECODER_POSITIONS):
        if name not in tensors:
            raise LongformerError(f"{source} has no table of positions ({name.removeprefix(LED.base)})")
    for part, name in (("encoder", ENCODER_POSITIONS), ("decoder", DECODER_POSITIONS)):
        for key in ("max_position_embeddings", f"max_{part}_position_embeddings"):
            check_rows(settings, key, tensors[name], unused=family.unused_positions)

    copied = sorted(tensors.keys() - {ENCODER_POSITIONS})
    table = tensors[ENCODER_POSITIONS]
    known = len(table) - family.unused_positions
    tensors[ENCODER_POSITIONS] = repeated_rows(table, first=family.unused_positions, max_length=max_length)
    tensors[DECODER_POSITIONS] = tensors[DECODER_POSITIONS][family.unused_positions :]
    initialised = copy_to_global(tensors)
    return LongModel(
        {
            **long_settings(settings, max_length=max_length, window=window),
            "max_decoder_position_embeddings": len(tensors[DECODER_POSITIONS]),
            "dtype": str(table.dtype).removeprefix("torch."),
        },
        tensors,
        tokenizer_class=family.tokenizer,
        new_rows=max_length - known,
        report=Conversion(
            copied, [ENCODER_POSITIONS], initialised, left_out, equal_length(settings, known=known, window=window)
        ),
    )


def long_settings(settings: Mapping[str, Any], *, max_length: int, window: int | None) -> dict[str, Any]:
    """Returns config.json of the LED that a model with these settings becomes; arguments as in `convert`."""
    written = settings.get("max_decoder_position_embeddings", settings.get("max_position_embeddings"))
    return {
        **led_settings(settings, ENCODER_DECODERS[settings["model_type"]]),
        "architectures": [led_architecture(settings)],
        **attention_window(window, layers=number(settings, "encoder_layers")),
        "max_encoder_position_embeddings": max_length,
        "max_decoder_position_embeddings": written,
    }


def led_names(saved: Mapping[str, Tensor], family: EncoderDecoderFamily) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors that an LED has a place for, under its names, and the names of the others."""
    tensors, left_out = {}, []
    for name, tensor in saved.items():
        bare = name.removeprefix(family.prefix)
        if bare.startswith("encoder."):
            for theirs, ours in PROJECTIONS.items():
                bare = bare.replace(theirs, ours)
        if bare.startswith(BASE_PARTS):
            tensors[LED.base + bare] = tensor
        elif bare.startswith(HEAD_PARTS):
            tensors[bare] = tensor
        else:
            left_out.append(name)
    return tensors, sorted(left_out)


def led_architecture(settings: Mapping[str, Any]) -> str:
    """Returns the LED class that stands for the source's."""
    architecture = architecture_of(settings)
    for task in ("ConditionalGeneration", "QuestionAnswering"):
        if architecture.endswith(f"For{task}"):
            return f"LEDFor{task}"
    return "LEDModel"


def led_settings(settings: Mapping[str, Any], family: EncoderDecoderFamily) -> dict[str, Any]:
    """Returns config.json of the source as an LED has it; settings for generation stay.

    An LED of Hugging Face neither scales embeddings nor normalises before its layers, as mBART does. A model that
    needs it says so by the keys that mBART's config has, and by a model_type of its own: read as a plain LED it would
    give wrong results without a word.
    """
    kept = {name: value for name, value in settings.items() if name not in ("max_position_embeddings", "torch_dtype")}
    if family.forced_end is not None:
        kept.setdefault("forced_eos_token_id", family.forced_end)
    if kept.get("decoder_start_token_id") is None:
        kept["decoder_start_token_id"] = setting(settings, "bos_token_id", 0) if family.start is None else family.start
    kept["normalize_before"] = setting(settings, "normalize_before", family.normalizes_before)
    kept["scale_embedding"] = setting(settings, "scale_embedding", False)
    is_extended = any(kept[name] for name in LEDConfig.extensions)
    return kept | {"model_type": LEDConfig.extended_family if is_extended else LEDConfig.family}
