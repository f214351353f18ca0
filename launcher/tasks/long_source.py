"""The model that a run of documents makes long: is it there, and what is it?"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from longformer.errors import LongformerError

_CONFIG_FILE = "config.json"


def check_source(source: Path) -> None:
    """Check that `model.source` is the folder of a model.

    Raises:
        LongformerError: it is not.
    """
    if not (source / _CONFIG_FILE).is_file():
        raise LongformerError(
            f"model.source {source} holds no model (working directory: {Path.cwd()}); name the folder of one with "
            "model.source=path/to/model"
        )


def source_settings(source: Path, *, stand_in: dict[str, Any] | None, families: Collection[str]) -> dict[str, Any]:
    """Return what `config.json` of the source says.

    Args:
        source: folder of a model.
        stand_in: what it would say; taken while the folder is not there.
        families: the values of `model_type` that can be made long.

    Raises:
        LongformerError: there is no model, its config.json is damaged, or it is of another family.
    """
    from longformer.interop.checkpoint_files import read_json  # brings torch; checking a run file needs none of it

    if stand_in is not None and not (source / _CONFIG_FILE).is_file():
        return stand_in
    check_source(source)
    settings = read_json(source / _CONFIG_FILE)
    if settings.get("model_type") not in families:
        raise LongformerError(
            f"model.source {source} is a model of the family {settings.get('model_type')}; this task takes "
            f"{', '.join(families)}"
        )
    return settings
