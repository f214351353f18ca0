"""In which weights two checkpoints differ, whatever the ranks and ZeRO stages that wrote them."""

from pathlib import Path

import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.checkpoints.reshard import universal_copy
from longformer.training.checkpoints.write import STATE


def weight_differences(first: Path, second: Path) -> dict[str, float]:
    """Returns the largest absolute difference of every parameter; both checkpoints must be verified.

    Universal copies of both are made where they are missing.

    Raises:
        LongformerError: the checkpoints are of different models.
    """
    folders = [_parameters(checkpoint) for checkpoint in (first, second)]
    names = [{folder.name for folder in parent.iterdir() if folder.is_dir()} for parent in folders]
    if names[0] != names[1]:
        raise LongformerError(
            f"{first.name} and {second.name} are of different models: {', '.join(sorted(names[0] ^ names[1]))}"
        )
    differences = {}
    for name in sorted(names[0]):
        before, after = (_weight(parent / name) for parent in folders)
        if before.numel() != after.numel():
            raise LongformerError(
                f"{first.name} and {second.name} are of different models: {name} has {before.numel()} values in one "
                f"and {after.numel()} in the other"
            )
        differences[name] = float((before - after).abs().max())
    return differences


def _parameters(checkpoint: Path) -> Path:
    whole = checkpoint if Manifest.read(checkpoint).is_universal else universal_copy(checkpoint)
    return whole / STATE / "zero"


def _weight(folder: Path) -> Tensor:
    saved = torch.load(folder / "fp32.pt", weights_only=True)
    return saved["param"].detach().flatten()
