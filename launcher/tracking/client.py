"""A client of MLflow that keeps quiet, and whose failures become one sentence.

It takes seconds to import, as does everything that imports MLflow; other modules do so where they first need it.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from launcher.config.mlflow_address import ADDRESS_VARIABLE, file_of, without_credentials
from longformer.errors import LongformerError, WorkFailed


def client_of(address: str) -> MlflowClient:
    """Returns a client of the store at an address.

    Raises:
        WorkFailed: it is an SQLite file that cannot be opened or made.
    """
    # What fails is told by us; MLflow's own notes would show addresses as they were given, passwords included.
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    database = file_of(address)
    if database is not None and not _can_be_written(database):
        # MLflow would try for five minutes.
        raise WorkFailed(f"the MLflow store {database} cannot be written: name another in {ADDRESS_VARIABLE}")
    with failures_as_sentences(address):
        return MlflowClient(address, registry_uri=address)


def _can_be_written(database: Path) -> bool:
    """Returns whether an SQLite file is there for us or can be made, with the folders above it."""
    if database.exists():
        return database.is_file() and os.access(database, os.R_OK | os.W_OK)
    above = next(folder for folder in database.absolute().parents if folder.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)


def experiment_id(client: MlflowClient, name: str) -> str:
    """Returns the number of an experiment, which is made where there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    # A server has its own artifact store; the embedded one would use ./mlruns of wherever it is started.
    beside = None
    database = file_of(client.tracking_uri)
    if database is not None:
        beside = database.resolve().with_name("mlflow-artifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=beside))


@contextmanager
def failures_as_sentences(address: str, *, missing: str | None = None) -> Iterator[None]:
    """Turns failures of the store at an address into one sentence; `missing` where there is no such thing."""
    try:
        yield
    except MlflowException as error:
        if missing is not None and is_missing(error):
            raise LongformerError(missing) from error
        raise WorkFailed(in_one_sentence(error, address)) from error
    except SQLAlchemyError as error:
        raise WorkFailed(in_one_sentence(error, address)) from error


def is_missing(error: MlflowException) -> bool:
    """Returns whether MLflow says that what was asked for does not exist."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def in_one_sentence(error: Exception, address: str) -> str:
    """Returns what went wrong with the store at an address and, where that is known, what to do."""
    shown = without_credentials(address)
    if isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403):
        return (
            f"the MLflow server {shown} refuses these credentials: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if isinstance(error.__context__, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
        return (
            f"no MLflow server answers at {shown}: start it, or name another in tracking.uri of the run file or in "
            f"{ADDRESS_VARIABLE}"
        )
    return f"{shown}: {without_credentials((str(error).splitlines() or [type(error).__name__])[0])}"
