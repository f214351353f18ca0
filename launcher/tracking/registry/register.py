"""Putting a trained model into MLflow's registry: files first, then the version, so that a version is always whole."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

import longformer
from launcher.config.mlflow_address import address_of_run
from launcher.runs.run import Run
from launcher.tracking.client import experiment_id, failures_as_sentences
from launcher.tracking.registry import served_model
from launcher.tracking.registry.export import Exportable
from launcher.tracking.registry.models import METRIC_TAG, TASK_TAG, ModelOfVersion, ModelRegistry
from launcher.tracking.registry.served_model import ServedModel
from longformer.files import write_json
from longformer.inference.serving import ABILITIES, example_of

EXPERIMENT = "longformer"
"""Of models that no run of ours has trained."""


def register_run(run: Run, name: str) -> None:
    """Stores the model of a finished run, as `register` does where the run is tracked; notes its version in it.

    Raises:
        LongformerError: the model is damaged.
        WorkFailed: MLflow does not answer or refuses, or the model cannot answer its example.
    """
    registry = ModelRegistry(address_of_run(run.config.tracking.uri, run.paths.root))
    model = register(registry, Exportable.find(run.paths.root), name)
    write_json(run.paths.registration_file, {"model": model.address, "task": model.task})


def register(registry: ModelRegistry, exportable: Exportable, name: str) -> ModelOfVersion:
    """Stores a model and makes it the newest version of a registered model, which is made where there is none.

    Raises:
        LongformerError: the model is damaged.
        WorkFailed: MLflow does not answer or refuses, or the model cannot answer its example.
    """
    client = registry.client
    with failures_as_sentences(registry.address), tempfile.TemporaryDirectory(prefix="longformer-") as made:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        run_id = exportable.run.paths.identity().mlflow_run_id if exportable.run else None
        experiment = client.get_run(run_id).info.experiment_id if run_id else experiment_id(client, EXPERIMENT)
        folder, package = Path(made, "model"), Path(made, "package")
        exportable.write(folder)
        model = client.create_logged_model(experiment, name, source_run_id=run_id, model_type=exportable.ability)
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
            tags={TASK_TAG: exportable.ability, **scores},
            model_id=model.model_id,
        )
        # So that MLflow's pages lead from the model to the version, as after its own register_model.
        client.set_logged_model_tags(
            model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([{"name": name, "version": version.version}])}
        )
    return ModelOfVersion(name, str(version.version), exportable.ability, exportable.metrics)


REQUIREMENTS = ("mlflow", "torch", "tokenizers", "safetensors", "numpy", "pandas")
"""All that a registered model needs where it is loaded."""


def write_package(exportable: Exportable, folder: Path, target: Path, *, model_id: str, run_id: str | None) -> None:
    """Writes a model, exported into a folder, as MLflow stores it; it has answered its example before.

    Args:
        exportable: what the model is.
        folder: where `Exportable.write` has put it.
        target: the new folder.
        model_id: MLflow's number of the model.
        run_id: the MLflow run it came from.

    Raises:
        MlflowException: the model cannot answer the example.
    """
    example = pandas.DataFrame([example_of(folder, exportable.ability)])
    settings = {"task": exportable.ability, **exportable.settings}
    mlflow.pyfunc.save_model(
        target,
        python_model=served_model.__file__,
        artifacts={"model": str(folder)},
        code_paths=[longformer.__path__[0]],
        model_config=settings,
        signature=_signature(folder, settings, example),
        input_example=example,
        pip_requirements=[_pinned(name) for name in REQUIREMENTS],
        mlflow_model=Model(run_id=run_id, model_id=model_id),
    )


def _signature(folder: Path, settings: dict[str, Any], example: pandas.DataFrame) -> ModelSignature:
    """Returns the columns of input and output and the parameters with their defaults."""
    model = ServedModel()
    model.open(folder, settings)
    ability = ABILITIES[settings["task"]]
    # A short answer shows the columns as well as a long one.
    answer = model.predict(None, example, ability.parameters | ability.quick)
    # A column that is empty in some row may be left out by those who ask.
    rows = [example, *(example.assign(**{name: None}) for name in ability.optional)]
    return infer_signature(pandas.concat(rows, ignore_index=True), answer, ability.parameters or None)


def _pinned(name: str) -> str:
    """Returns the installed version as a requirement; builds for a CPU or a CUDA version count as the release."""
    return f"{name}=={version(name).partition('+')[0]}"
