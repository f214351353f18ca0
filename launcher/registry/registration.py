"""Putting a trained model into MLflow's registry: files first, then the version, so that a version is always whole."""

import json
import tempfile
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from launcher.mlflow_address import address_of_run
from launcher.mlflow_client import experiment_id, failures_told
from launcher.registry.export import Exportable
from launcher.registry.models import METRIC_TAG, TASK_TAG, ModelOfVersion, ModelRegistry
from launcher.registry.package import write_package
from launcher.run_directory import RunDirectory
from longformer.files import write_json

EXPERIMENT = "longformer"
"""Of models that no run of ours has trained."""


def register_run(run: RunDirectory, name: str) -> None:
    """Store the model of a finished run as `register` does, where the run is tracked, and note its version in the run.

    Raises:
        LongformerError: the model is damaged.
        WorkFailed: MLflow does not answer or refuses, or the model cannot answer its example.
    """
    registry = ModelRegistry(address_of_run(run.config().tracking.uri, run.path))
    model = register(registry, Exportable.find(run.path), name)
    write_json(run.registration_file, {"model": model.address, "task": model.task})


def register(registry: ModelRegistry, exportable: Exportable, name: str) -> ModelOfVersion:
    """Store a model and make it the newest version of a registered model, which is made where there is none.

    Raises:
        LongformerError: the model is damaged.
        WorkFailed: MLflow does not answer or refuses, or the model cannot answer its example.
    """
    client = registry.client
    with failures_told(registry.address), tempfile.TemporaryDirectory(prefix="longformer-") as made:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        run_id = exportable.run.identity().mlflow_run_id if exportable.run else None
        experiment = client.get_run(run_id).info.experiment_id if run_id else experiment_id(client, EXPERIMENT)
        folder, package = Path(made, "model"), Path(made, "package")
        exportable.write(folder)
        model = client.create_logged_model(experiment, name, source_run_id=run_id, model_type=exportable.task)
        try:
            write_package(exportable, folder, package, model_id=model.model_id, run_id=run_id)
            client.log_model_artifacts(model.model_id, str(package))
        except BaseException:
            client.finalize_logged_model(model.model_id, "FAILED")
            raise
        client.finalize_logged_model(model.model_id, "READY")
        scores = {METRIC_TAG + metric: repr(value) for metric, value in exportable.metrics.items()}
        version = client.create_model_version(
            name,
            model.artifact_location,
            run_id,
            tags={TASK_TAG: exportable.task, **scores},
            model_id=model.model_id,
        )
        # So that MLflow's pages lead from the model to the version, as after its own register_model.
        client.set_logged_model_tags(
            model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([{"name": name, "version": version.version}])}
        )
    return ModelOfVersion(name, str(version.version), exportable.task, exportable.metrics)
