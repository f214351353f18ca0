"""Fixtures of the fault tests: prepared data once, and the uninterrupted run of every ZeRO stage once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.shards.prepared import PreparedData
from launcher.training.phases import Status
from tests.faults.tiny_run import TinyRun, prepare_text, tiny_config


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Prepared random words."""
    return prepare_text(tmp_path_factory.mktemp("text"))


@pytest.fixture
def new_run(tmp_path: Path, text: PreparedData) -> Callable[..., TinyRun]:
    """Return a function that creates a run; its keyword arguments are the run file's training section."""

    def create(**training: Any) -> TinyRun:
        return TinyRun(tmp_path / "run", tiny_config(tmp_path, text, **training), text)

    return create


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, text: PreparedData) -> Callable[..., TinyRun]:
    """Return a function that gives the finished, never interrupted run with the same training section."""
    finished: dict[str, TinyRun] = {}

    def find(**training: Any) -> TinyRun:
        key = repr(sorted(training.items()))
        if key not in finished:
            directory = tmp_path_factory.mktemp("undisturbed")
            finished[key] = TinyRun(directory / "run", tiny_config(directory, text, **training), text)
            assert finished[key].go().status is Status.COMPLETED
        return finished[key]

    return find
