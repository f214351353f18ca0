"""The model that a new run starts from instead of the start of its task, as `init` in its run file says.

The run keeps a copy of its own, so that resuming it needs neither the folder nor the registry.
"""

import shutil

from launcher.config.mlflow_address import address_of_run
from launcher.runs.run import Run
from launcher.tasks.data import InputData
from launcher.tasks.registry import task_of
from launcher.tracking.registry.export import Exportable
from launcher.tracking.registry.open_model import opened


def bring_start_model(run: Run, data: InputData) -> str | None:
    """Copy the model that `init` names into the directory of a new run.

    Returns:
        Exactly which model it is, an alias resolved to its version; None where `init` names none.

    Raises:
        LongformerError: there is no such model, or it does not fit the run.
        WorkFailed: MLflow does not answer or refuses.
    """
    shutil.rmtree(run.paths.start_directory, ignore_errors=True)  # of a creation that was interrupted
    config = run.config
    if config.init is None:
        return None
    with opened(config.init, store=address_of_run(config.tracking.uri, run.paths.root)) as model:
        found = Exportable.find(model.folder)
        task_of(config, data.directory).check_start(found.model)
        found.write(run.paths.start_directory)
        return model.origin
