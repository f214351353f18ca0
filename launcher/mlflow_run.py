"""The MLflow side of a training run: what is stored under which name.

Everything sent is read from the run directory, and MLflow is asked what it has already: sending again
after a restart or an outage changes nothing. Failures of MLflow pass through; `launcher.tracking`
decides what they mean.
"""

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

from launcher.metrics_follower import MetricsFollower
from launcher.run_directory import RunDirectory
from launcher.run_file import RunConfig

# Read by MLflow when it is imported: it must not call home, and must give up on an absent server in seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

STEP_METRICS = (
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "mfu",
    "saving_seconds",
    "skipped_steps",
    "phase_index",
    "tokens",
)
"""Fields of a StepRecord that become the metrics `train/<name>`, over the step of the whole run; the loss also in bits,
under the task's own name."""

_METRICS_PER_REQUEST = 1000  # MLflow's own limits
_PARAMETERS_PER_REQUEST = 100

Status = Literal["FINISHED", "FAILED", "KILLED"]


class MlflowRun:
    """An MLflow run that holds a training run: parameters, metrics, phases as child runs, report and model."""

    def __init__(self, run_id: str, config: RunConfig, directory: RunDirectory) -> None:
        self.run_id = run_id
        self.uri = tracking_uri(config, directory)
        self._config = config
        self._directory = directory
        self._client = _client(self.uri)
        self._experiment_id = self._client.get_run(run_id).info.experiment_id
        self._metrics = MetricsFollower(directory.metrics_file)

    @classmethod
    def continue_or_create(cls, run_id: str | None, config: RunConfig, directory: RunDirectory) -> Self:
        """Return the run `run_id`, marked as running again; a new one when there is none or the store has lost it."""
        try:
            run = cls(run_id, config, directory) if run_id else cls._create(config, directory)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = cls._create(config, directory)
        run._client.update_run(run.run_id, status="RUNNING")
        return run

    @classmethod
    def _create(cls, config: RunConfig, directory: RunDirectory) -> Self:
        """Start a new run in the config's experiment and store every value of the run file as a parameter."""
        client = _client(tracking_uri(config, directory))
        experiment_id = _experiment(client, config, directory)
        tags = {
            "mlflow.runName": config.name,
            "mlflow.source.name": "longformer train",
            "longformer.version": version("longformer-train"),
            "longformer.run_directory": str(directory.path.resolve()),
            "longformer.config_fingerprint": config.fingerprint(),
        }
        run = client.create_run(experiment_id, tags=tags, run_name=config.name)
        parameters = [Param(key, _parameter(value)) for key, value in config.values().items()]
        for batch in _batches(parameters, _PARAMETERS_PER_REQUEST):
            client.log_batch(run.info.run_id, params=batch)
        return cls(run.info.run_id, config, directory)

    def watch_system(self) -> SystemMetricsMonitor:
        """Start sampling processor, memory, disk, network and GPU of this machine; the caller finishes it."""
        monitor = SystemMetricsMonitor(self.run_id, sampling_interval=5, resume_logging=True, tracking_uri=self.uri)
        monitor.start()
        return monitor

    def send_steps(self) -> None:
        """Send the steps of metrics.jsonl that MLflow does not have yet, in order."""
        records = self._metrics.new_records()
        if not records:
            return
        # A request is stored whole or not at all, so the newest `tokens` tells which steps have arrived.
        arrived = self._client.get_run(self.run_id).data.metrics.get("train/tokens", 0)
        missing = [record for record in records if record["tokens"] > arrived]
        try:
            for batch in _batches(missing, _METRICS_PER_REQUEST // (len(STEP_METRICS) + 1)):
                now = _milliseconds(time.time())
                metrics = [
                    Metric(f"train/{name}", value, now, record["global_step"])
                    for record in batch
                    for name, value in self._values(record).items()
                ]
                self._client.log_batch(self.run_id, metrics=metrics)
        except Exception:
            self._metrics = MetricsFollower(self._directory.metrics_file)  # read them again next time
            raise

    def _values(self, record: dict[str, Any]) -> dict[str, float]:
        """Return the metrics of a step."""
        values = {name: float(record[name]) for name in STEP_METRICS}
        return values | {self._config.words.bits: values["loss"] / math.log(2)}

    def send_phases(self) -> None:
        """Send the result of every finished phase: held-out scores of the run, and a child run for the phase."""
        children = self._client.search_runs([self._experiment_id], f"tags.mlflow.parentRunId = '{self.run_id}'")
        known = {child.data.tags["longformer.phase"] for child in children}
        last_step = 0
        for index, phase in enumerate(self._config.phases):
            last_step += phase.steps
            path = self._directory.result_directory(index, phase.name) / "evaluation.json"
            if phase.name not in known and path.exists():
                evaluation = json.loads(path.read_text(encoding="utf-8"))
                self._send_phase(index, evaluation, last_step=last_step, ended=path.stat().st_mtime)

    def _send_phase(self, index: int, evaluation: dict[str, Any], *, last_step: int, ended: float) -> None:
        phase = self._config.phases[index]
        scores = {
            f"{split}/{name}": evaluation[split][name]
            for split in ("validation", "test")
            if split in evaluation
            for name in self._config.words.scores
        }
        now = _milliseconds(ended)
        for key, value in scores.items():
            self._client.log_metric(self.run_id, key, value, now, last_step)
        tags = {
            "mlflow.parentRunId": self.run_id,
            "mlflow.source.name": "longformer train",
            "longformer.phase": phase.name,
        }
        child = self._client.create_run(
            self._experiment_id,
            start_time=now - _milliseconds(evaluation["seconds"]),
            tags=tags,
            run_name=f"{self._config.name}: {index + 1} {phase.name}",
        )
        measured = {name: evaluation[name] for name in ("steps", "tokens", "seconds", "peak_memory_bytes")}
        metrics = [Metric(key, float(value), now, last_step) for key, value in (scores | measured).items()]
        parameters = [Param(name, _parameter(value)) for name, value in phase.model_dump(mode="json").items()]
        self._client.log_batch(child.info.run_id, metrics=metrics, params=parameters)
        self._client.set_terminated(child.info.run_id, "FINISHED", now)

    def send_report(self) -> None:
        """Send the report (its summary as the run's description) and the model of the last finished phase."""
        report = self._directory.report_directory
        if report.is_dir():
            self._client.log_artifacts(self.run_id, str(report), "report")
            self._client.set_tag(self.run_id, "mlflow.note.content", (report / "summary.md").read_text("utf-8"))
        self._client.log_artifact(self.run_id, str(self._directory.config_file))
        results = [self._directory.result_directory(i, phase.name) for i, phase in enumerate(self._config.phases)]
        finished = [result for result in results if result.exists()]
        if finished:
            self._client.log_artifacts(self.run_id, str(finished[-1] / "model"), "model")

    def end(self, status: Status) -> None:
        """Close the run."""
        self._client.set_terminated(self.run_id, status)


def tracking_uri(config: RunConfig, directory: RunDirectory) -> str:
    """Return where MLflow keeps the run: the config's address, else an SQLite file beside the run directories."""
    return config.tracking.uri or store_uri(directory.path.resolve().parent)


def store_uri(runs_folder: Path) -> str:
    """Return the address of the embedded store of a folder of runs."""
    return f"sqlite:///{runs_folder.resolve() / 'mlflow.db'}"


def _client(uri: str) -> MlflowClient:
    for chatty in ("mlflow", "alembic"):  # their notes on creating tables are of no use to us
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return MlflowClient(uri)


def _experiment(client: MlflowClient, config: RunConfig, directory: RunDirectory) -> str:
    name = config.tracking.experiment
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    # A server has its own artifact store; the embedded one would use ./mlruns of wherever it is started.
    beside = (directory.path.resolve().parent / "mlflow-artifacts").as_uri() if config.tracking.uri is None else None
    return str(client.create_experiment(name, artifact_location=beside))


def _parameter(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
