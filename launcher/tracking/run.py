"""The MLflow side of a training run: what is stored under which name.

Everything sent is read from the run directory, and MLflow is asked what it has already: sending again
after a restart or an outage changes nothing. Failures of MLflow pass through; `launcher.tracking.callbacks`
decides what they mean.
"""

import hashlib
import json
import math
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from typing import Any, Literal

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_LOGGED_ARTIFACTS, MLFLOW_MODEL_IS_EXTERNAL

from launcher.config.mlflow_address import address_of_run
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.runs.submission import code_version
from launcher.tracking.client import client_of, experiment_id, is_missing
from longformer.errors import LongformerError
from longformer.training.checkpoints.manifest import MANIFEST_FILE, Manifest

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
    """An MLflow run that holds a training run: parameters, metrics, phases as child runs, report and model.

    The run that identity.json names is gone on with; where it names none, or the store has lost it, a run is made and
    named there.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._config = run.config
        self._address = address_of_run(self._config.tracking.uri, run.paths.root)
        self._client = client_of(self._address)
        known = run.paths.identity().mlflow_run_id
        try:
            tracked = self._client.get_run(known) if known else None
        except MlflowException as error:
            if not is_missing(error):
                raise
            tracked = None
        if tracked is None:
            self.run_id, self._experiment_id = self._found_or_created()
            run.paths.write_identity(replace(run.paths.identity(), mlflow_run_id=self.run_id))
        else:
            self.run_id, self._experiment_id = tracked.info.run_id, tracked.info.experiment_id
        self._metrics = MetricsFollower(run.paths.metrics_file)
        self._evaluations = MetricsFollower(run.paths.evaluations_file)
        self._training_seconds = 0.0
        self._checkpoints: set[str] = set()

    def _found_or_created(self) -> tuple[str, str]:
        """Returns the numbers of the run and its experiment; a run whose making was not heard of is found again."""
        experiment = experiment_id(self._client, self._config.tracking.experiment)
        identity = self._run.paths.identity()
        path = str(self._run.paths.root.resolve())
        key = hashlib.sha256(f"{path} {identity.created}".encode()).hexdigest()
        found = self._client.search_runs([experiment], f"tags.`longformer.key` = '{key}'")
        if found:
            run_id = found[0].info.run_id
        else:
            identifying = {"longformer.key": key, "mlflow.source.name": "longformer train"}
            run_id = self._client.create_run(experiment, tags=identifying, run_name=self._config.name).info.run_id
        code = code_version(self._run.paths)
        facts = {
            "longformer.version": version("longformer-train"),
            "longformer.code": code.fingerprint,
            MLFLOW_GIT_COMMIT: code.commit,
            "longformer.run_directory": path,
            "longformer.config_fingerprint": self._config.fingerprint(),
            "longformer.start_model": identity.start_model,
        }
        tags = [RunTag(name, value) for name, value in facts.items() if value is not None]
        self._client.log_batch(run_id, tags=tags)
        parameters = [Param(key, _parameter(value)) for key, value in self._config.values().items()]
        for batch in _batches(parameters, _PARAMETERS_PER_REQUEST):
            self._client.log_batch(run_id, params=batch)
        return run_id, experiment

    def mark_running(self) -> None:
        """Says that training goes on."""
        self._client.update_run(self.run_id, status="RUNNING")

    def watch_system(self) -> "SystemMonitor":
        """Starts sampling processor, memory, disk, network and GPU of this machine; the caller finishes it."""
        monitor = SystemMonitor(
            self.run_id,
            sampling_interval=5,
            node_id=socket.gethostname(),
            resume_logging=True,
            tracking_uri=self._address,
        )
        monitor.start()
        return monitor

    def send_steps(self) -> None:
        """Sends the steps of metrics.jsonl that MLflow does not have yet, in order."""
        records = self._metrics.new_records()
        if not records:
            return
        if records[0]["global_step"] == 1:
            self._training_seconds = 0.0  # the file was cut back, and is read from its start
        created = datetime.fromisoformat(self._run.paths.identity().created).timestamp()
        times = {}
        for record in records:
            self._training_seconds += record["seconds"] + record["saving_seconds"]
            times[record["global_step"]] = _milliseconds(created + self._training_seconds)
        try:
            # A request is stored whole or not at all, so the newest `tokens` tells which steps have arrived. What
            # arrives twice all the same, after an answer that was lost, MLflow drops: every field of it is the same.
            arrived = self._client.get_run(self.run_id).data.metrics.get("train/tokens", 0)
            missing = [record for record in records if record["tokens"] > arrived]
            for batch in _batches(missing, _METRICS_PER_REQUEST // (len(STEP_METRICS) + 1)):
                metrics = [
                    Metric(f"train/{name}", value, times[record["global_step"]], record["global_step"])
                    for record in batch
                    for name, value in self._values(record).items()
                ]
                self._client.log_batch(self.run_id, metrics=metrics)
        except Exception:
            self._metrics = MetricsFollower(self._run.paths.metrics_file)  # read them again next time
            raise

    def send_evaluations(self) -> None:
        """Sends the evaluations within phases that MLflow does not have yet, as `train/validation_SCORE`."""
        records = self._evaluations.new_records()
        now = _milliseconds(time.time())
        try:
            for name in self._config.words.scores if records else ():
                key = f"train/validation_{name}"
                arrived = {metric.step for metric in self._client.get_metric_history(self.run_id, key)}
                missing = [
                    Metric(key, float(record["validation"][name]), now, record["global_step"])
                    for record in records
                    if record["global_step"] not in arrived and name in record["validation"]
                ]
                for batch in _batches(missing, _METRICS_PER_REQUEST):
                    self._client.log_batch(self.run_id, metrics=batch)
        except Exception:
            self._evaluations = MetricsFollower(self._run.paths.evaluations_file)  # read them again next time
            raise

    def send_checkpoints(self) -> None:
        """Makes MLflow point to the checkpoints that exist now."""
        on_disk = {str(path) for path in self._run.paths.all_checkpoints()}
        if on_disk != self._checkpoints:
            send_checkpoints(self._client, self._experiment_id, self.run_id, self._run)
            self._checkpoints = on_disk

    def _values(self, record: dict[str, Any]) -> dict[str, float]:
        """Returns the metrics of a step."""
        values = {name: float(record[name]) for name in STEP_METRICS}
        return values | {self._config.words.bits: values["loss"] / math.log(2)}

    def send_phases(self) -> None:
        """Sends the result of every finished phase: held-out scores of the run, and a child run for the phase."""
        children = self._client.search_runs([self._experiment_id], f"tags.mlflow.parentRunId = '{self.run_id}'")
        known = {child.data.tags["longformer.phase"]: child for child in children}
        last_step = 0
        for index, phase in enumerate(self._config.phases):
            path = self._run.result_directory(index) / "evaluation.json"
            if not path.exists():
                break
            evaluation = json.loads(path.read_text(encoding="utf-8"))
            last_step += evaluation["steps"]
            child = known.get(phase.name)
            if child is None or child.info.status != "FINISHED":
                child_id = child.info.run_id if child else None
                self._send_phase(index, evaluation, child_id, last_step=last_step, ended=path.stat().st_mtime)

    def _send_phase(
        self, index: int, evaluation: dict[str, Any], child_id: str | None, *, last_step: int, ended: float
    ) -> None:
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
        if child_id is None:
            child_id = self._client.create_run(
                self._experiment_id,
                start_time=now - _milliseconds(evaluation["seconds"]),
                tags=tags,
                run_name=f"{self._config.name}: {index + 1} {phase.name}",
            ).info.run_id
        measured = {name: evaluation[name] for name in ("steps", "tokens", "seconds", "peak_memory_bytes")}
        metrics = [Metric(key, float(value), now, last_step) for key, value in (scores | measured).items()]
        parameters = [Param(name, _parameter(value)) for name, value in phase.model_dump(mode="json").items()]
        self._client.log_batch(child_id, metrics=metrics, params=parameters)
        self._client.set_terminated(child_id, "FINISHED", now)

    def send_report(self) -> None:
        """Sends the report (its summary as the run's description) and the model of the last finished phase.

        Files in report/tables are shown as MLflow's evaluation tables: {"columns": [...], "data": [[...], ...]}.
        """
        report = self._run.paths.report_directory
        if report.is_dir():
            self._client.log_artifacts(self.run_id, str(report), "report")
            self._client.set_tag(self.run_id, "mlflow.note.content", (report / "summary.md").read_text("utf-8"))
            tables = [str(path.relative_to(report.parent)) for path in sorted(report.glob("tables/*.json"))]
            shown = [{"path": table, "type": "table"} for table in tables]
            self._client.set_tag(self.run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps(shown))
        self._client.log_artifact(self.run_id, str(self._run.paths.config_file))
        finished = self._run.finished_results()
        if finished:
            self._client.log_artifacts(self.run_id, str(finished[-1] / "model"), "model")

    def end(self, status: Status) -> None:
        """Closes the run."""
        self._client.set_terminated(self.run_id, status)


class SystemMonitor(SystemMetricsMonitor):
    """MLflow's sampler, which ends by itself when its server does not answer."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing is sampled any more."""
        return self._process is None or not self._process.is_alive()


def _parameter(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


_TYPE = "checkpoint"
_PATH = "longformer.path"
"""Tag: where the checkpoint lies in the run directory."""


def send_checkpoints(client: MlflowClient, experiment_id: str, run_id: str, run: Run) -> None:
    """Lets the run's checkpoints in MLflow be those on disk: new ones are added, removed ones go."""
    on_disk = {str(path.relative_to(run.paths.root)): path for path in run.paths.all_checkpoints()}
    known = set()
    for model in _sent(client, experiment_id, run_id):
        if model.status == LoggedModelStatus.READY and model.tags.get(_PATH) in on_disk:
            known.add(model.tags[_PATH])
        else:
            client.delete_logged_model(model.model_id)
    for name in on_disk.keys() - known:
        try:
            manifest = Manifest.read(on_disk[name])
        except LongformerError:  # removed at this moment
            continue
        facts = {
            "phase": manifest.phase,
            "step": manifest.progress.step,
            "tokens": manifest.progress.tokens,
            "ranks": manifest.ranks,
            "zero_stage": manifest.zero_stage,
            "bytes": sum(file["size"] for file in manifest.files.values()),
        }
        model = client.create_logged_model(
            experiment_id,
            name=f"{manifest.phase}-{on_disk[name].name}".replace(".", "-"),
            source_run_id=run_id,
            tags={_PATH: name, MLFLOW_MODEL_IS_EXTERNAL: "true"},
            params={fact: str(value) for fact, value in facts.items()},
            model_type=_TYPE,
        )
        client.log_model_artifact(model.model_id, str(on_disk[name] / MANIFEST_FILE))
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=manifest.progress.global_step)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _sent(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """Returns what this run has in MLflow as checkpoints."""
    wanted = f"source_run_id = '{run_id}' AND model_type = '{_TYPE}'"
    found: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models([experiment_id], filter_string=wanted, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
