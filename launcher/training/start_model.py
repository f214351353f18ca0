"""The model that a run starts from, brought into its directory."""

import shutil

from launcher.runs.run import Run
from launcher.tasks.data import InputData
from launcher.tasks.registry import task_of
from launcher.tracking.registry.export import Exportable
from launcher.tracking.registry.open_model import open_model


def bring_start_model(run: Run, data: InputData) -> str | None:
    """Writes the model that a new run starts from into its directory: it needs neither folder nor registry then.

    Returns:
        Exactly which model it is made of, an alias resolved to its version; None where weights are random.

    Raises:
        LongformerError: there is no such model, or it does not fit the run.
        WorkFailed: MLflow does not answer or refuses.
    """
    shutil.rmtree(run.paths.start_directory, ignore_errors=True)  # of a creation that was interrupted
    config = run.config
    task = task_of(config, data.directory)
    if config.init is None:
        return task.write_start(run.paths.start_directory)
    with open_model(config.init, store=config.tracking.uri) as model:
        found = Exportable.find(model.folder)
        task.check_start(found.model)
        found.write(run.paths.start_directory)
        task.settle_start(run.paths.start_directory)
        return model.origin
