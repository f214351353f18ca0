"""The folder that MLflow stores for a registered model: weights, code, signature, example and pinned requirements."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
from mlflow.models import Model, ModelSignature, infer_signature

import data_pipeline
import longformer
from launcher.registry import served_model
from launcher.registry.export import CHARACTERS, Exportable
from launcher.registry.served_model import ServedModel
from longformer.interop.tokenizer import read_tokenizer
from longformer.prediction import MASKS

REQUIREMENTS = ("mlflow", "torch", "tokenizers", "safetensors", "numpy", "pandas")
"""All that a registered model needs where it is loaded."""
_TEXT = "The quick brown fox jumps over the lazy dog."
_PARAMETERS: dict[str, dict[str, Any]] = {
    CHARACTERS: {"new_characters": 0, "temperature": 1.0, "seed": 0},
    "fill-mask": {"top": 5},
    "classify": {},
    "label": {},
    "answer": {"top": 5},
    "summarize": {"max_new_tokens": 0, "num_beams": 0},
}


def write_package(exportable: Exportable, folder: Path, target: Path, *, model_id: str, run_id: str | None) -> None:
    """Write a model, exported into a folder, as MLflow stores it; it has answered its example before.

    Args:
        exportable: what the model is.
        folder: where `Exportable.write` has put it.
        target: the new folder.
        model_id: MLflow's number of the model.
        run_id: the MLflow run it came from.

    Raises:
        MlflowException: the model cannot answer the example.
    """
    example = _example(exportable, folder)
    mlflow.pyfunc.save_model(
        target,
        python_model=served_model.__file__,
        artifacts={"model": str(folder)},
        code_paths=[str(Path(package.__path__[0])) for package in (longformer, data_pipeline)],
        model_config=exportable.settings,
        signature=_signature(exportable, folder, example),
        input_example=example,
        pip_requirements=[_pinned(name) for name in REQUIREMENTS],
        mlflow_model=Model(run_id=run_id, model_id=model_id),
    )


def _example(exportable: Exportable, folder: Path) -> pandas.DataFrame:
    """Return one row of input: a sentence, of a character model as much of it as it can read."""
    if exportable.task == "answer":
        return pandas.DataFrame([{"question": "What does the fox do?", "context": _TEXT}])
    if exportable.task == "fill-mask":
        tokenizer = read_tokenizer(folder)
        mask = next((mask for mask in MASKS if tokenizer.token_to_id(mask) is not None), MASKS[0])
        return pandas.DataFrame([{"text": _TEXT.replace("fox", mask)}])
    # text8 knows small letters and spaces only.
    return pandas.DataFrame([{"text": _TEXT.lower().rstrip(".") if exportable.task == CHARACTERS else _TEXT}])


def _signature(exportable: Exportable, folder: Path, example: pandas.DataFrame) -> ModelSignature:
    """Return the columns of input and output and the parameters with their defaults."""
    model = ServedModel()
    model.open(folder, exportable.settings)
    parameters = _PARAMETERS[exportable.task]
    # A short summary shows the columns as well as a long one.
    quick = {"max_new_tokens": 2} if exportable.task == "summarize" else {}
    return infer_signature(example, model.predict(None, example, parameters | quick), parameters or None)


def _pinned(name: str) -> str:
    """Return the installed version as a requirement; builds for a CPU or a CUDA version count as the release."""
    return f"{name}=={version(name).partition('+')[0]}"
