"""Between this project and Hugging Face: names and folders both ways, and our attention inside their models."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # reading a tokenizer needs no torch
    from torch import nn

Model = TypeVar("Model", bound="nn.Module")


def patch(model: Model) -> Model:
    """Gives a Hugging Face Longformer or LED model our attention, in place; see `longformer.interop.patching`."""
    from longformer.interop.patching import patch_model

    return patch_model(model)
