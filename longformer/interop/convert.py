"""Long models out of short ones: encoders become Longformers, BART and mBART become LEDs (semantics.md 2).

Nothing is learnt here. Positions beyond the source's table repeat it block by block, global projections start as
copies of the local ones; where every token sees every other, the new model equals its source.
"""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from longformer import models
from longformer.errors import LongformerError
from longformer.files import write_atomically, write_json
from longformer.interop import convert_encoder, convert_led
from longformer.interop.added_tokens import EXTRA, SETTINGS, read_settings
from longformer.interop.checkpoint_files import (
    GENERATION_FILE,
    check_unused,
    read_tensors,
    write_folder,
)
from longformer.interop.conversion import Conversion, check_shapes
from longformer.interop.fitting import part_of
from longformer.interop.huggingface import config_from_json
from longformer.interop.model_folder import read_config
from longformer.interop.sources import ENCODER_DECODERS, ENCODERS
from longformer.interop.tokenizer import (
    FILES,
    NAMED,
    WHOLE,
    has_tokenizer,
    open_content,
    tokenizer_content,
    with_tokens,
)
from longformer.models.common.freezing import FREEZE_PRETRAINED, PRETRAINED_ROWS
from longformer.models.common.weightless import without_weights

CONVERTERS = {
    **dict.fromkeys(ENCODERS, convert_encoder.longformer_of),
    **dict.fromkeys(ENCODER_DECODERS, convert_led.led_of),
}


def convert(
    source: Path,
    target: Path,
    *,
    max_length: int,
    window: int | None,
    freeze_pretrained: bool = False,
    tokenizer: Path | None = None,
    special_tokens: Sequence[str] | None = None,
    added_tokens: Sequence[str] = (),
    seed: int = 0,
    without: Collection[str] = (),
) -> Conversion:
    """Writes a long model made of a short one, in Hugging Face's layout, its tokenizer beside it.

    Args:
        source: a folder of one of the families in `CONVERTERS`; a long model becomes a longer one.
        target: a folder without a model.
        max_length: tokens that the new model reads, special ones included; of an LED, those of its encoder.
        window: neighbours that a token sees, both sides together; None = as in the source, which is long.
        freeze_pretrained: note in config.json that training is to change the new position rows only
            (`longformer.models.common.freezing`).
        tokenizer: a folder or a tokenizer.json; None: the source.
        special_tokens: special tokens that stand for themselves in documents; None: those that the tokenizer names.
        added_tokens: special tokens that an encoder gets beside those of its tokenizer, unless it has them. A head over
            the vocabulary has no place for them: it is to be among `without`.
        seed: of their rows in the table of words.
        without: heads of the source that the new model is not to have.

    Raises:
        LongformerError: the source cannot be read or converted, or the target holds a model already.
        ValueError: max_length is less than what the source reads, or the window is not even and positive.
    """
    if window is not None and (window <= 0 or window % 2):
        raise ValueError(f"window must be even and positive, not {window}")
    check_unused(target)
    settings = read_config(source)
    name = settings.get("model_type")
    if name not in CONVERTERS:
        raise LongformerError(f"{source} is a model of the family {name}; convert knows {', '.join(CONVERTERS)}")
    if name in ENCODERS:
        ends = ends_of_texts(tokenizer or source)
        settings |= {key: number for key, number in ends.items() if settings.get(key) is None}
    tensors = {name: tensor for name, tensor in read_tensors(source).items() if part_of(name) not in without}
    made = CONVERTERS[name](tensors, settings, source, max_length=max_length, window=window)
    if added_tokens:
        content = tokenizer_content(tokenizer or source, special_tokens)
        made = convert_encoder.with_added_tokens(made, content, added_tokens, seed=seed)
    check_shapes(made, described_tensors(made.settings))
    (table,) = made.report.extended
    rows = len(made.tensors[table])
    # A source that was made long before may tell which of its rows were new then.
    pretrained_rows = rows - made.new_rows if made.new_rows else settings.get(PRETRAINED_ROWS, rows)
    if freeze_pretrained and pretrained_rows == rows:
        raise ValueError(f"freeze_pretrained leaves nothing to train: the source reads {max_length} tokens already")
    notes = {PRETRAINED_ROWS: pretrained_rows, FREEZE_PRETRAINED: freeze_pretrained}
    # The model's config.json comes last of all: it says that the folder is whole.
    write_tokenizer(tokenizer or source, target, made.tokenizer_class, max_length, special_tokens, added_tokens)
    _copy(source, target, (GENERATION_FILE,))
    write_folder(target, {**made.settings, **notes}, made.tensors)
    return made.report


def ends_of_texts(tokenizer: Path) -> dict[str, int]:
    """Returns the ids of the tokens that begin and end a text, as config.json names them; BERT's never does.

    Args:
        tokenizer: a folder or a tokenizer.json; nothing is known where there is none, or where it adds no tokens.

    Raises:
        LongformerError: the tokenizer cannot be read.
    """
    if tokenizer.is_dir() and not has_tokenizer(tokenizer):
        return {}
    text = open_content(tokenizer_content(tokenizer)).encode("a")
    if len(text) < 2 or text.sequence_ids[0] is not None or text.sequence_ids[-1] is not None:
        return {}
    return {"bos_token_id": text.ids[0], "eos_token_id": text.ids[-1], "sep_token_id": text.ids[-1]}


def described_tensors(settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the tensors of the model that a config.json of ours describes, by name, on the meta device."""
    model_class = getattr(models, settings["architectures"][0])
    with without_weights():
        tensors: dict[str, Tensor] = model_class(config_from_json(settings, model_class.family.config)).named_tensors()
    return tensors


def copy_files(source: Path, target: Path) -> None:
    """Copies the tokenizer and the settings for generation, as far as they are there, as they are."""
    _copy(source, target, (*FILES, GENERATION_FILE))


def write_tokenizer(
    source: Path,
    target: Path,
    tokenizer_class: str,
    max_length: int,
    special_tokens: Sequence[str] | None,
    added_tokens: Sequence[str] = (),
) -> None:
    """Writes the tokenizer of a folder or a tokenizer.json as one tokenizer.json, with its new limit, its class spelled
    out and `added_tokens`, and its files as they are beside it; nothing where the folder has none.

    Raises:
        LongformerError: the tokenizer cannot be read.
    """
    if source.is_dir() and not has_tokenizer(source):
        return
    tokenizer = json.loads(with_tokens(tokenizer_content(source, special_tokens), added_tokens))
    target.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        _copy(source, target, FILES)
        settings = read_settings(source)
        settings.setdefault("tokenizer_class", tokenizer_class)
    else:
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if tokenizer.get("truncation"):
        tokenizer["truncation"]["max_length"] = max_length
    if special_tokens is not None:
        settings[NAMED] = list(special_tokens)
    if added_tokens:
        # For classes of transformers that build a tokenizer of their own out of the other files.
        settings[EXTRA] = list(dict.fromkeys([*(settings.get(EXTRA) or []), *added_tokens]))
    write_json(target / SETTINGS, {**settings, "model_max_length": max_length})
    write_atomically(target / WHOLE, json.dumps(tokenizer, ensure_ascii=False, indent=2).encode())


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
