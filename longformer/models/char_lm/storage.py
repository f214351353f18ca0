"""Models on disk: config.json beside model.safetensors, written as a whole, checked name by name when read."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.files import committed_directory, write_json
from longformer.interop.checkpoint_files import unwrapped

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

Config = TypeVar("Config")


def save(directory: Path, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Writes a model directory that appears whole or not at all.

    Args:
        directory: must not exist yet.
        config: a dataclass of plain values.
        tensors: what to store, by name; no two may share memory.

    Raises:
        LongformerError: the directory exists already.
        OSError: it cannot be written; nothing is left behind.
    """
    from safetensors.torch import save as serialized

    if directory.exists():
        raise LongformerError(f"{directory} exists already; remove it or choose another directory for the model")
    with committed_directory(directory) as staging:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in unwrapped(tensors).items()}
        (staging / WEIGHTS_FILE).write_bytes(serialized(plain, metadata={"format": "pt"}))
        write_json(staging / CONFIG_FILE, dataclasses.asdict(config))


def load_config(directory: Path, kind: type[Config]) -> Config:
    """Returns the config of a model directory as a dataclass of the given kind.

    Raises:
        LongformerError: config.json is missing, not JSON, or not such a config.
    """
    path = directory / CONFIG_FILE
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise LongformerError(f"{directory} holds no model: {CONFIG_FILE} is missing") from error
    except (OSError, ValueError, TypeError) as error:
        raise LongformerError(f"{path} is not a valid {kind.__name__}: {error}") from error


def load_weights(directory: Path, parameters: Mapping[str, Tensor]) -> None:
    """Copies a saved model's tensors into `parameters`, all of them or, on any disagreement, none.

    Raises:
        LongformerError: the file is missing or damaged; or lists every missing, unknown and misshapen tensor.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise LongformerError(f"{directory} holds no model: {WEIGHTS_FILE} is missing")
    try:
        saved, parameters = unwrapped(load_file(path)), unwrapped(parameters)
    except (SafetensorError, OSError) as error:
        raise LongformerError(f"{path} is damaged or cut short ({error}); copy or export the model again") from error
    problems = [f"{name} is missing" for name in parameters.keys() - saved.keys()]
    problems += [f"{name} is unknown" for name in saved.keys() - parameters.keys()]
    problems += [
        f"{name} has shape {tuple(saved[name].shape)} instead of {tuple(parameters[name].shape)}"
        for name in parameters.keys() & saved.keys()
        if saved[name].shape != parameters[name].shape
    ]
    if problems:
        raise LongformerError(f"{path} does not fit the model: {'; '.join(sorted(problems))}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
