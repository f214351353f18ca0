"""Models in MLflow's registry: versions with their scores, the aliases they carry, and their files.

Every failure of MLflow comes out as one sentence.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mlflow
import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from launcher.config.mlflow_address import ADDRESS_VARIABLE, file_of, without_credentials
from launcher.tracking.client import client_of, failures_as_sentences
from longformer.errors import LongformerError
from longformer.interop.model_folder import WEIGHT_FILES

METRIC_TAG = "metric."
"""Before the name of a score among a version's tags."""
TASK_TAG = "longformer.task"


class ModelAddress(NamedTuple):
    """Names a registered model by one of its aliases or by a version."""

    name: str
    alias: str | None
    version: str | None

    @classmethod
    def parse(cls, text: str) -> "ModelAddress":
        """Reads models:/NAME@ALIAS or models:/NAME/VERSION.

        Raises:
            LongformerError: it is written otherwise.
        """
        match = re.fullmatch(r"models:/([^/@:]+)(?:@([^/@:]+)|/(\d+))", text)
        if match is None:
            raise LongformerError(f"cannot read {text}: write models:/NAME@ALIAS or models:/NAME/VERSION")
        return cls(*match.groups())


@dataclass(frozen=True)
class ModelOfVersion:
    """A version of a registered model."""

    name: str
    version: str
    task: str
    metrics: dict[str, float]

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    @property
    def address(self) -> str:
        """The version's own address, which always means the same model."""
        return f"models:/{self.name}/{self.version}"


class ModelRegistry:
    """The registry of the MLflow store at an address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = client_of(address)
        named = os.environ.get(ADDRESS_VARIABLE)
        mlflow.set_tracking_uri(address)  # MLflow looks up the files of a new version there, whatever the client's is
        # It has put the address into the environment too, where runs that name none would take it for the user's wish.
        os.environ.pop(ADDRESS_VARIABLE, None)
        if named is not None:
            os.environ[ADDRESS_VARIABLE] = named

    def find(self, address: ModelAddress) -> ModelOfVersion:
        """Returns the model that an address names.

        Raises:
            LongformerError: there is no such model, alias or version, or another program registered it.
            WorkFailed: MLflow does not answer or refuses.
        """
        aliases = self._registered(address.name).aliases
        if address.alias is not None and address.alias not in aliases:
            carried = ", ".join(f"{alias} (version {version})" for alias, version in sorted(aliases.items())) or "none"
            raise LongformerError(
                f"{address.name} has no alias {address.alias} (it has: {carried}); "
                f"`longformer promote {address.name} --alias {address.alias}` gives it"
            )
        version = address.version or str(aliases[str(address.alias)])
        missing = f"{address.name} has no version {version}; the newest is {self.newest(address.name).version}"
        with failures_as_sentences(self.address, missing=missing):
            return _read(self.client.get_model_version(address.name, version))

    def newest(self, name: str) -> ModelOfVersion:
        """Returns the newest version of a model.

        Raises:
            LongformerError: there is no such model, or another program registered it.
            WorkFailed: MLflow does not answer or refuses.
        """
        self._registered(name)
        with failures_as_sentences(self.address):
            versions = self.client.search_model_versions(f"name = '{name}'")
        if not versions:
            raise LongformerError(f"{name} has no version yet; `longformer register RUN --name {name}` makes one")
        return _read(max(versions, key=lambda version: int(version.version)))

    def holder(self, name: str, alias: str) -> ModelOfVersion | None:
        """Returns the version that carries an alias, or None."""
        if alias not in self._registered(name).aliases:
            return None
        return self.find(ModelAddress(name, alias, None))

    def give_alias(self, model: ModelOfVersion, alias: str) -> None:
        """Gives an alias to a version and takes it from the one that carried it."""
        with failures_as_sentences(self.address):
            self.client.set_registered_model_alias(model.name, alias, model.version)

    def fetch(self, model: ModelOfVersion, target: Path, *, weights: bool = True) -> Path:
        """Returns the model's folder in Hugging Face's layout (the character model: in its own), copied below `target`.

        Args:
            model: which.
            target: a folder.
            weights: whether to copy them too.

        Raises:
            WorkFailed: MLflow does not answer or refuses.
        """
        with failures_as_sentences(self.address):
            source = self.client.get_model_version_download_uri(model.name, model.version)
            folder = f"{source}/artifacts/model"
            if weights:
                return self._copied(folder, target)
            for file in mlflow.artifacts.list_artifacts(artifact_uri=folder, tracking_uri=self.address):
                name = Path(file.path).name
                if name not in WEIGHT_FILES:
                    self._copied(f"{folder}/{name}", target)
        return target

    def _copied(self, address: str, target: Path) -> Path:
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(target), tracking_uri=self.address)
        )

    def _registered(self, name: str) -> RegisteredModel:
        shown = without_credentials(self.address)
        missing = (
            f"there is no model {name} in {shown}; `longformer register RUN --name {name}` makes it, and "
            f"{ADDRESS_VARIABLE} names another MLflow store"
        )
        # MLflow would make the file.
        database = file_of(self.address)
        if database is not None and not database.is_file():
            raise LongformerError(missing)
        with failures_as_sentences(self.address, missing=missing):
            return self.client.get_registered_model(name)


def _read(version: ModelVersion) -> ModelOfVersion:
    task = version.tags.get(TASK_TAG)
    if task is None:
        raise LongformerError(f"{version.name} version {version.version} was not registered by `longformer register`")
    metrics = {
        name.removeprefix(METRIC_TAG): float(value)
        for name, value in version.tags.items()
        if name.startswith(METRIC_TAG)
    }
    return ModelOfVersion(version.name, str(version.version), task, metrics)
