"""What a model folder holds, read from its config.json and the headers of its weights: no weight is loaded."""

from dataclasses import dataclass
from pathlib import Path

from longformer.costs.encoder import EncoderMemory, EncoderShape, encoder_memory, shape_of
from longformer.errors import LongformerError
from longformer.interop.checkpoint_files import read_tensors
from longformer.interop.families import LED, LONGFORMER
from longformer.interop.fitting import without_copies
from longformer.interop.huggingface import ORIGINALS, config_class, config_from_json
from longformer.interop.model_folder import read_config
from longformer.interop.tokenizer import tokenizer_file
from longformer.models.common.freezing import FREEZE_PRETRAINED, PRETRAINED_ROWS
from longformer.models.led.config import LEDConfig
from longformer.models.longformer.config import LongformerConfig


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model folder."""

    architecture: str
    """Class that the weights were saved from; that of the bare model where config.json does not say."""
    layout: str
    """Whose names and conventions the folder has."""
    parameters: int
    """Number of weights; those that two parts share count once."""
    dtypes: list[str]
    """Types of the weights."""
    config: LongformerConfig | LEDConfig
    encoder: EncoderShape
    tokenizer: str | None
    """Name of the file it is read from."""
    pretrained_rows: int | None
    """Of a converted model: rows of the position table that come from its source; the others repeat them."""
    freeze_pretrained: bool
    """Whether training is to change the other rows only."""
    length: int
    """Tokens of the text that `memory` is about."""
    memory: EncoderMemory
    """An estimate."""


def inspect_folder(directory: Path, *, length: int | None = None) -> Checkpoint:
    """Returns what a folder holds.

    Args:
        directory: in a layout that `from_pretrained` reads.
        length: tokens of the text to estimate memory for; None = the longest.

    Raises:
        LongformerError: it is no Longformer and no LED, or a file is missing or damaged.
        ValueError: the model does not read texts of this length.
    """
    values = read_config(directory)
    kind = config_class(values)
    if kind is None:
        raise LongformerError(
            f"{directory} is a model of the family {values.get('model_type', 'unknown')}, not a Longformer or an LED; "
            "longformer convert makes one of RoBERTa, XLM-R, BERT, ELECTRA, BART and mBART models"
        )
    config = config_from_json(values, kind)
    family, bare = (LED, "LEDModel") if isinstance(config, LEDConfig) else (LONGFORMER, "LongformerModel")
    tensors = family.current_names(read_tensors(directory, device="meta"))
    if config.tie_word_embeddings:
        tensors = without_copies(tensors, family.tied)
    weights = [tensor for name, tensor in tensors.items() if name != "final_logits_bias"]
    parameters = sum(tensor.numel() for tensor in weights)

    shape = shape_of(config)
    length = shape.positions if length is None else length
    if not 0 < length <= shape.positions:
        raise ValueError(f"length must be from 1 to the {shape.positions} tokens that the model reads, got {length}")
    tokenizer = tokenizer_file(directory)
    return Checkpoint(
        architecture=next(iter(values.get("architectures") or []), bare),
        layout=layout_of(values.get("model_type"), config),
        parameters=parameters,
        dtypes=sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights}),
        config=config,
        encoder=shape,
        tokenizer=None if tokenizer is None else tokenizer.name,
        pretrained_rows=config.other.get(PRETRAINED_ROWS),
        freeze_pretrained=bool(config.other.get(FREEZE_PRETRAINED)),
        length=length,
        memory=encoder_memory(config, parameters=parameters, length=length),
    )


def layout_of(model_type: str | None, config: LongformerConfig | LEDConfig) -> str:
    """Returns whose layout a folder has."""
    if model_type in ORIGINALS:
        return "allenai's original code"
    return "Hugging Face" if model_type == config.family else "this project's own, from mBART; not for Hugging Face"
