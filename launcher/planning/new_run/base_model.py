"""The model that a new run starts from: a published one by its family's name, a folder, a run or a registered one."""

from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.tasks.data import open_tokenizer
from launcher.tasks.recipes import BaseModel
from launcher.tasks.registry import recipe_names, recipe_of
from launcher.tracking.registry.open_model import described_model
from longformer.errors import LongformerError
from longformer.interop.model_folder import CONFIG_FILE, hub_hint, read_config

NAMED = {"roberta": "roberta-base", "bart": "bart-base", "longformer": "longformer-base-4096", "led": "led-base-16384"}
"""The published model that a family's name stands for."""


def find_base_model(name: str, recipe_name: str) -> BaseModel:
    """Returns the model that `--from` names, for the recipe that `--task` names.

    Raises:
        LongformerError: there is no such family or folder, its files are damaged, or it does not fit the recipe.
    """
    published, recipe = NAMED.get(name), recipe_of(recipe_name)
    source = Path("models", published) if published else Path(name)
    folder = described_model(str(source)).folder
    is_there = (folder / CONFIG_FILE).is_file()
    if not is_there and published is None:
        raise LongformerError(
            f"--from {name} is no folder with a model; give one, or one of {', '.join(NAMED)}{hub_hint(source)}"
        )
    settings = read_config(folder) if is_there or published is None else _shape_of(published)
    family, families = settings.get("model_type"), recipe.families
    if family not in families:
        raise LongformerError(
            f"--task {recipe_name} takes models of the families {', '.join(families)}; --from {name} is a {family}"
        )
    if not is_there and published not in recipe.published:
        raise LongformerError(f"--task {recipe_name} looks at the model: put {published} into {source}, or say --from")
    return BaseModel(source, None if is_there else published, settings, _tokenizer(folder) if is_there else None)


def _shape_of(published: str) -> dict[str, Any]:
    shapes: dict[str, dict[str, Any]] = {}
    for name in recipe_names():
        shapes |= recipe_of(name).published
    return shapes[published]


def _tokenizer(source: Path) -> TextTokenizer:
    try:
        return open_tokenizer(source)
    except DataError as error:
        raise LongformerError(f"--from {source}: {error}") from error
