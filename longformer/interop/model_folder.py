"""Which folder holds a model, told without anything that takes seconds to import."""

import re
from pathlib import Path
from typing import Any

from longformer.errors import LongformerError
from longformer.files import read_json

CONFIG_FILE = "config.json"


def read_config(directory: Path) -> dict[str, Any]:
    """Returns what config.json of a model folder says.

    Raises:
        LongformerError: there is no such folder or file, or the file is damaged.
    """
    if not (directory / CONFIG_FILE).is_file():
        hint = trainer_hint(directory) or hub_hint(directory)
        raise LongformerError(f"{directory} holds no model: {CONFIG_FILE} is missing{hint}")
    return read_json(directory / CONFIG_FILE)


def trainer_hint(directory: Path) -> str:
    """Returns how to save a model of ours, to be put behind a refusal, where transformers' Trainer has saved one."""
    if not (directory / "training_args.bin").is_file():
        return ""
    return "; transformers' Trainer writes it for its own classes only: save the model with model.save_pretrained"


def hub_hint(directory: Path) -> str:
    """Returns how to download a model, to be put behind a refusal, where no folder is there and it may be a name on
    the Hugging Face hub; else nothing."""
    if directory.exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(directory)):
        return ""
    return f"; if it is a name on the Hugging Face hub: hf download {directory} --local-dir {directory}"
