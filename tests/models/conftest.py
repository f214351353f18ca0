"""A small character model with every feature switchable, far enough from its start that mistakes show; and the
published models, where they are at hand."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM


@pytest.fixture
def build_model() -> Callable[..., CharacterLM]:
    """Return a function that builds a model of three layers in evaluation mode; its arguments override the config."""

    def build(**overrides: object) -> CharacterLM:
        shape = {
            "vocabulary_size": 11,
            "layers": 3,
            "hidden_size": 24,
            "heads": 3,
            "feedforward_size": 40,
            "windows": (3, 4, 5),
            "dilations": (1, 2, 3),
            "dilated_heads": 2,
        }
        torch.manual_seed(0)
        model = CharacterLM(CharacterModelConfig(**{**shape, **overrides}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def published() -> Callable[[str], Path]:
    """Return a function that gives the folder of a published model by its name, or skips the test."""

    def find(name: str) -> Path:
        folder = Path(os.environ.get("LONGFORMER_PRETRAINED", "")) / name
        if "LONGFORMER_PRETRAINED" not in os.environ or not folder.is_dir():
            pytest.skip(f"set LONGFORMER_PRETRAINED to a folder that holds {name}")
        return folder

    return find
