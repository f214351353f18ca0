"""The files of a Hugging Face folder: reads safetensors or the older .bin, whole or in shards; writes safetensors."""

import logging
import pickle
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.files import read_json, staging_of, sync_directory, sync_file, write_json
from longformer.interop.model_folder import CONFIG_FILE, WEIGHT_FILES, weights_file

GENERATION_FILE = "generation_config.json"
# Those that weights have; what else there may be does not count.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}

# Names of the modules that torch.compile, DataParallel, FSDP and its activation checkpointing put around others.
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Ends of the names of buffers that fairseq left in old checkpoints; no model reads them.
LEFTOVERS = ("encoder.version", "decoder.version", "embed_positions._float_tensor")

Device = Literal["cpu", "meta"]

log = logging.getLogger(__name__)


def write_folder(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a model; config.json comes last and says that the folder is whole.

    Raises:
        LongformerError: the folder holds a model already.
        OSError: it cannot be written.
    """
    from safetensors.torch import save_file

    check_unused(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / WEIGHT_FILES[0]
    staging = staging_of(weights)
    staging.unlink(missing_ok=True)
    staging.touch()
    # save_file makes a file for its owner alone; this one is to have the mode of any other file made here.
    mode = stat.S_IMODE(staging.stat().st_mode)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, staging, {"format": "pt"})
    staging.chmod(mode)
    sync_file(staging)
    staging.replace(weights)
    write_json(directory / CONFIG_FILE, config)
    sync_directory(directory)


def check_unused(directory: Path) -> None:
    """Raises LongformerError when a folder holds a model already."""
    if (directory / CONFIG_FILE).exists():
        raise LongformerError(f"{directory} holds a model already; remove it or choose another directory")


def read_tensors(directory: Path, *, device: Device = "cpu") -> dict[str, Tensor]:
    """Returns all tensors of a model directory by name, without wrappers and leftovers, which are logged.

    Args:
        device: "meta" reads shapes and types only, which takes no time and no memory.

    Raises:
        LongformerError: no weights are there, a file is missing, damaged or cut short, or two tensors differ in
            wrappers only.
    """
    tensors = stored_tensors(directory, device)
    names = unwrapped(tensors)
    wrapped = next((name for name in tensors if name not in names), None)
    if len(names) < len(tensors):
        raise LongformerError(f"{directory} holds two tensors for {plain_name(str(wrapped))}; remove one of them")
    if wrapped is not None:
        log.warning("%s was saved from a wrapped model: %s is read as %s", directory, wrapped, plain_name(wrapped))
    leftovers = [name for name in names if name.endswith(LEFTOVERS)]
    if leftovers:
        log.warning("%s has leftovers of fairseq, which are ignored: %s", directory, ", ".join(leftovers))
    return {name: tensor for name, tensor in names.items() if name not in leftovers}


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors under the names that they have where no module is wrapped; see `WRAPPERS`."""
    return {plain_name(name): tensor for name, tensor in tensors.items()}


def plain_name(name: str) -> str:
    """Returns the name of a tensor without the wrappers on its path."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def stored_tensors(directory: Path, device: Device) -> dict[str, Tensor]:
    """Returns all tensors of a model directory by the names that they are stored under."""
    file = weights_file(directory)
    return read_shards(file, device) if file.suffix == ".json" else read_file(file, device)


def read_shards(index: Path, device: Device) -> dict[str, Tensor]:
    """Returns the tensors of all files that an index names."""
    homes: dict[str, str] = read_json(index).get("weight_map", {})
    if not isinstance(homes, dict) or not homes:
        raise LongformerError(f"{index} has no weight_map, which says where each tensor lies; copy it again")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(homes.values())):
        path = index.parent / name
        if path.parent != index.parent:
            raise LongformerError(f"{index} names {name}, which is not a file beside it")
        if not path.is_file():
            raise LongformerError(f"{path} is missing; copy all shards that {index.name} names")
        tensors |= read_file(path, device)
    missing = sorted(homes.keys() - tensors.keys())
    if missing:
        raise LongformerError(f"the shards beside {index} lack {', '.join(missing)}")
    return tensors


def read_file(path: Path, device: Device) -> dict[str, Tensor]:
    """Returns the tensors of one file; nothing in it is executed."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path) if device == "cpu" else read_header(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise LongformerError(f"{path} is damaged or cut short ({first_line(error)}); copy it again") from error
    except pickle.UnpicklingError as error:
        raise LongformerError(f"{path} holds more than tensors and is not read ({first_line(error)})") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise LongformerError(f"{path} is not a table of tensors")
    return dict(content)


def read_header(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file without their numbers, on the meta device."""
    from safetensors import safe_open

    tensors = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            stored = file.get_slice(name)
            dtype = DTYPES.get(stored.get_dtype(), torch.uint8)
            tensors[name] = torch.empty(stored.get_shape(), dtype=dtype, device="meta")
    return tensors


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return str(error).partition("\n")[0]
