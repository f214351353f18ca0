"""The model that a new run starts from instead of random weights, as `init` in its run file says.

The run keeps a copy of its own, so that resuming it needs neither the folder nor the registry.
"""

import shutil

import torch

from data_pipeline.prepared import PreparedData
from launcher.mlflow_address import address_of_run
from launcher.registry.export import VOCABULARY_FILE, Exportable
from launcher.registry.opening import opened
from launcher.run_directory import RunDirectory
from launcher.run_file import RunConfig
from launcher.trained_model import TrainedModel
from longformer.errors import LongformerError
from longformer.models.char_lm import CharacterLM


def bring_start_model(run: RunDirectory, config: RunConfig, data: PreparedData) -> str | None:
    """Copy the model that `init` names into the directory of a new run.

    Returns:
        Exactly which model it is, an alias resolved to its version; None where the run starts from random weights.

    Raises:
        LongformerError: there is no such model, or it is not of the run's shape or vocabulary.
        WorkFailed: MLflow does not answer or refuses.
    """
    shutil.rmtree(run.start_directory, ignore_errors=True)  # of a creation that was interrupted
    if config.init is None:
        return None
    with opened(config.init, store=address_of_run(config.tracking.uri, run.path)) as model:
        found = Exportable.find(model.folder)
        _check(found, config, data)
        found.write(run.start_directory)
        return model.origin


def _check(found: Exportable, config: RunConfig, data: PreparedData) -> None:
    if not (found.model / VOCABULARY_FILE).is_file():
        raise LongformerError(
            f"init: {config.init} is no character model (no {VOCABULARY_FILE}), but the run trains one"
        )
    if TrainedModel.load(found.model).vocabulary != data.vocabulary:
        raise LongformerError(
            f"init: {config.init} reads other characters than {data.directory} holds; prepare the data with the recipe "
            "that the model was trained on"
        )
    with torch.random.fork_rng():
        CharacterLM(config.character_model(0, len(data.vocabulary))).load_weights(found.model)
