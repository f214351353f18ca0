"""A few real steps of every phase, to see what they take here before the run is started; nothing of them is kept."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from launcher.backends.local.backend import LocalBackend
from launcher.config.run_config import RunConfig
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.registry import data_of
from launcher.training.phases import PhaseTask, Status
from launcher.training.signals import signals_noted
from launcher.training.start_model import bring_start_model
from launcher.training.trial import Trial
from longformer.errors import WorkFailed


def try_phases(config: RunConfig, *, ranks: int, warn: Callable[[str], None]) -> list[Trial]:
    """Takes a few steps of every phase on so many ranks of this machine, with the run's own data and start.

    The data is prepared where it is not yet, as training would. Later phases are tried from the start of the first.

    Raises:
        LongformerError, DataError: the run could not start either.
        WorkFailed: a rank failed; the message is the last it said.
    """
    data = data_of(config).prepare()
    config = data_of(config).in_steps()
    with TemporaryDirectory(prefix="longformer-trial-") as folder, signals_noted() as stop:
        run = Run(RunPaths(Path(folder)), config)
        run.create(ranks=ranks, data_directory=data.directory, data_fingerprint=data.fingerprint)
        bring_start_model(run, data)
        backend = LocalBackend(stop, None, warn)
        for index in range(len(config.phases)):
            outcome = backend.run_phase(PhaseTask(run, index, ranks, None, None, is_trial=True))
            if outcome.status is not Status.COMPLETED:
                raise WorkFailed(outcome.message or "the trial was stopped")
        return [Trial.read(run, index) for index in range(len(config.phases))]
