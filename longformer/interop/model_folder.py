"""Which folder holds a model, told without anything that takes seconds to import."""

import re
import zipfile
from pathlib import Path
from typing import Any

from longformer.errors import LongformerError
from longformer.files import read_json

CONFIG_FILE = "config.json"
# In the order in which they are preferred.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_NAMES_BYTES = 1 << 22


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


def weights_file(directory: Path) -> Path:
    """Returns the file with the weights of a model, or the index of its shards.

    Raises:
        LongformerError: there is neither.
    """
    for name in WEIGHT_FILES:
        for file in (directory / name, directory / f"{name}.index.json"):
            if file.is_file():
                return file
    raise LongformerError(f"{directory} holds no weights: neither {' nor '.join(WEIGHT_FILES)}, whole or in shards")


def weight_names(directory: Path) -> bytes:
    """Returns bytes in which the names of a model's tensors stand, among others; no number is read.

    Raises:
        LongformerError: there are no weights, or their file is damaged.
    """
    from safetensors import SafetensorError

    file = weights_file(directory)
    try:
        return _bytes_with_names(file)
    except (OSError, SafetensorError, StopIteration, zipfile.BadZipFile) as error:
        raise LongformerError(f"{file} is damaged or cut short ({error}); copy it again") from error


def _bytes_with_names(file: Path) -> bytes:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="numpy") as described:
            return "\n".join(described.keys()).encode()
    with file.open("rb") as opened:
        if file.suffix == ".bin" and zipfile.is_zipfile(opened):
            with zipfile.ZipFile(opened) as archive:
                return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
        opened.seek(0)
        # Of the layout of torch before 1.6, the names stand before the numbers.
        return opened.read(_NAMES_BYTES)
