"""What a command is given as a model: a folder, or the address of a version in MLflow's registry."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from launcher.config.mlflow_address import address_here
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run


class OpenedModel(NamedTuple):
    """A model that can be read."""

    folder: Path
    origin: str
    """Exactly which it is: an absolute path, or models:/NAME/VERSION."""


def model_folder(source: Path) -> Path:
    """Returns the folder of a model: `source` itself, or that of the model which a run has trained, as it leaves it.

    Raises:
        LongformerError: no phase of the run is done yet, or its result is damaged.
    """
    if not RunPaths(source).exists:
        return source
    run = Run.open(source)
    result = run.newest_result()
    return run.paths.export_directory if run.paths.export_directory.exists() else result / "model"


@contextmanager
def open_model(source: str, *, store: str | None = None) -> Iterator[OpenedModel]:
    """Yields the folder that `source` names; that of a registered model is fetched and lasts as long as the context.

    Args:
        source: a path, models:/NAME@ALIAS or models:/NAME/VERSION.
        store: address of the MLflow store; None = as the environment says, else that of the folder runs.

    Raises:
        LongformerError: the address cannot be read, or nothing is registered under it.
        WorkFailed: MLflow does not answer or refuses.
    """
    if not source.startswith("models:/"):
        yield OpenedModel(Path(source), str(Path(source).resolve()))
        return
    from launcher.tracking.registry.models import (  # which imports MLflow, which takes seconds
        ModelAddress,
        ModelRegistry,
    )

    address = ModelAddress.parse(source)
    registry = ModelRegistry(store or address_here())
    model = registry.find(address)
    with tempfile.TemporaryDirectory(prefix="longformer-") as target:
        yield OpenedModel(registry.fetch(model, Path(target)), model.address)
