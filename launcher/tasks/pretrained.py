"""What the tasks on documents share on one rank: their model comes from a folder and leaves in the same layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from launcher.config.run_config import RunConfig
from launcher.tasks.task_phase import save_weights
from longformer.interop.convert import copy_files
from longformer.models.common.pretrained import PretrainedModel

Model = TypeVar("Model", bound=PretrainedModel)


def open_long_model(model_class: type[Model], origin: Path | None, config: RunConfig) -> Model:
    """Return the model that a phase starts from, in float32 and training mode.

    Args:
        model_class: its class.
        origin: its folder.
        config: says whether layers are computed again in the backward pass.

    Raises:
        LongformerError: the folder cannot be read.
    """
    assert origin is not None, "the run has a start"
    model = model_class.from_pretrained(origin, dtype=torch.float32).train()
    if config.training.activation_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def write_long_model(model: PretrainedModel, weights: Mapping[str, Tensor], origin: Path | None, target: Path) -> None:
    """Write a phase's result as a folder of Hugging Face's layout, with the tokenizer of the folder it came from.

    Args:
        model: of the right shape; its own numbers are overwritten.
        weights: every parameter, whole, by name.
        origin: the folder that the phase started from.
        target: a directory that does not exist.
    """
    assert origin is not None, "the run has a start"
    save_weights(model, weights, target)
    copy_files(origin, target)
