"""What a command or a run file names as a model: a folder, a run, or the address of a version in MLflow's registry."""

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher.config.mlflow_address import address_here
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run

if TYPE_CHECKING:  # brings MLflow, which takes seconds
    from launcher.tracking.registry.models import ModelOfVersion, ModelRegistry


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


def is_registered(source: str | Path) -> bool:
    """Returns whether a model is named by its address in the registry."""
    return str(source).startswith("models:/")


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
    if not is_registered(source):
        yield OpenedModel(Path(source), str(Path(source).resolve()))
        return
    registry, model = _found(source, store or address_here())
    with tempfile.TemporaryDirectory(prefix="longformer-") as target:
        yield OpenedModel(registry.fetch(model, Path(target)), model.address)


def described_model(source: str, *, store: str | None = None) -> OpenedModel:
    """Returns a folder with what describes a model, its config and its tokenizer, and exactly which model that is.

    The folder is the model's own, or of a registered one a copy without the weights, which lasts as long as the process
    and stays the same though the alias be given to another version. Arguments and errors as in `open_model` and
    `model_folder`.
    """
    if not is_registered(source):
        return OpenedModel(model_folder(Path(source)), str(Path(source).resolve()))
    return _description(source, store or address_here())


@cache
def _description(source: str, store: str) -> OpenedModel:
    registry, model = _found(source, store)
    target = tempfile.TemporaryDirectory(prefix="longformer-")
    atexit.register(target.cleanup)
    return OpenedModel(registry.fetch(model, Path(target.name), weights=False), model.address)


def _found(source: str, store: str) -> "tuple[ModelRegistry, ModelOfVersion]":
    from launcher.tracking.registry.models import ModelAddress, ModelRegistry

    address = ModelAddress.parse(source)
    registry = ModelRegistry(store)
    return registry, registry.find(address)
