"""A small run, new or finished, on a small prepared text."""

from pathlib import Path

import pytest
from example_run import QUICKSTART, SHIPPED, SMALL, records, write_result, write_steps

from data_pipeline.shards.prepared import PreparedData
from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tracking.client import client_of
from tests.data_pipeline.preparing import prepare_characters


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The text of our own run files, prepared."""
    folder = tmp_path_factory.mktemp("text")
    return prepare_characters("text", source=SHIPPED, output=folder / "prepared")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs; making its tables takes seconds, so it is made once and copied."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    client_of(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def config() -> RunConfig:
    """The quickstart with few steps."""
    return load(QUICKSTART, SMALL)


@pytest.fixture
def created_run(tmp_path: Path, config: RunConfig, prepared: PreparedData) -> Run:
    """A run that has been created but has no step yet."""
    run = Run(RunPaths(tmp_path / "runs" / config.name), config)
    run.paths.root.mkdir(parents=True)
    run.create(ranks=2, data_directory=Path(prepared.location), data_fingerprint=prepared.fingerprint)
    return run


@pytest.fixture
def finished_run(created_run: Run) -> Run:
    """The run with all its steps and results."""
    config = created_run.config
    write_steps(created_run, records(config))
    for index in range(len(config.phases)):
        write_result(created_run, index)
    return created_run
