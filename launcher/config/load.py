"""Reads a run file into the config of its task."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from launcher.config import yaml_file
from launcher.config.run_config import RunConfig
from launcher.tasks.registry import config_class_of
from longformer.errors import LongformerError


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Returns what a run file says, with overrides such as `phases.0.steps=100` laid over it.

    Returns:
        The config of the file's task.

    Raises:
        LongformerError: a file is missing or malformed, a key is unknown, or values do not fit
            together; one line per problem.
    """
    loaded = yaml_file.read(Path(path), overrides)
    kind = config_class_of(loaded)
    try:
        return kind.model_validate(loaded.content)
    except ValidationError as error:
        raise LongformerError(yaml_file.problems(error, kind, loaded)) from None
