"""MLflow follows a run: nothing lost, nothing twice, never in the way. The real MLflow on a real SQLite file."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_run import QUICKSTART, SMALL, records, write_numbers, write_result, write_steps
from mlflow import entities
from mlflow.tracking import MlflowClient

from launcher.config.load import load
from launcher.config.run_config import RunConfig
from launcher.runs.run import Run
from launcher.tracking.callbacks import MlflowCallback, SystemMetricsCallback, finish_run, start_run
from launcher.tracking.run import MlflowRun
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.records import PhaseInfo, Progress


@pytest.fixture
def mlflow_client(created_run: Run, empty_store: Path) -> MlflowClient:
    store = created_run.paths.root.parent / "mlflow.db"
    shutil.copyfile(empty_store, store)
    return MlflowClient(f"sqlite:///{store}")


def start(directory: Run) -> str:
    start_run(directory)
    run_id = directory.paths.identity().mlflow_run_id
    assert run_id is not None
    return run_id


def phase_info(config: RunConfig, index: int) -> PhaseInfo:
    phase = config.phases[index]
    return PhaseInfo(
        name=phase.name,
        index=index,
        steps=phase.total_steps,
        sequence_length=phase.sequence_length,
        batch_size=phase.batch_size,
        ranks=2,
    )


def steps_of(client: MlflowClient, run_id: str, metric: str = "train/loss") -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run_id, metric))


def write_evaluations(run: Run, steps: list[int]) -> None:
    lines = [{"global_step": step, "validation": {"bits_per_character": 3.0 - step / 100}} for step in steps]
    run.paths.evaluations_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_finished_run_holds_parameters_metrics_phases_report_and_model(
    finished_run: Run, mlflow_client: MlflowClient
) -> None:
    run_id = start(finished_run)
    write_numbers(finished_run)
    finish_run(finished_run, status="FINISHED")

    run = mlflow_client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["phases.1.windows"] == "[32, 64, 128, 256]"
    assert run.data.params["model.size"] == "tiny"
    assert steps_of(mlflow_client, run_id) == list(range(1, 61))
    assert run.data.metrics["validation/bits_per_character"] == pytest.approx(2.2)
    assert run.data.metrics["test/bits_per_character"] == pytest.approx(2.25)
    assert steps_of(mlflow_client, run_id, "validation/bits_per_character") == [30, 50, 60]
    assert {item.path for item in mlflow_client.list_artifacts(run_id)} == {"run.yaml", "report", "model"}
    assert "report/cost.png" in {item.path for item in mlflow_client.list_artifacts(run_id, "report")}
    assert "| short | 128 |" in run.data.tags["mlflow.note.content"]
    assert not list(finished_run.paths.root.rglob("mlruns"))

    phases = mlflow_client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    assert {phase.data.tags["longformer.phase"] for phase in phases} == {"short", "medium", "long"}
    short = next(phase for phase in phases if phase.data.tags["longformer.phase"] == "short")
    assert short.data.params["sequence_length"] == "128"
    assert short.data.metrics["validation/bits_per_character"] == 3.0
    assert short.info.status == "FINISHED"


def test_run_continued_from_an_earlier_checkpoint_logs_no_step_twice(
    created_run: Run, mlflow_client: MlflowClient
) -> None:
    steps = records(created_run.config)
    run_id = start(created_run)
    write_steps(created_run, steps[:25])
    write_evaluations(created_run, [10, 20])
    finish_run(created_run, status="KILLED")
    assert mlflow_client.get_run(run_id).info.status == "KILLED"

    assert start(created_run) == run_id
    assert mlflow_client.get_run(run_id).info.status == "RUNNING"
    write_steps(created_run, steps[20:40])  # goes on from a checkpoint at step 20
    write_evaluations(created_run, [10, 20, 30])
    write_result(created_run, 0)
    finish_run(created_run, status="FAILED")
    finish_run(created_run, status="FAILED")

    assert mlflow_client.get_run(run_id).info.status == "FAILED"
    assert steps_of(mlflow_client, run_id) == list(range(1, 41))
    assert steps_of(mlflow_client, run_id, "train/validation_bits_per_character") == [10, 20, 30]
    assert steps_of(mlflow_client, run_id, "validation/bits_per_character") == [30]
    experiment = mlflow_client.get_run(run_id).info.experiment_id
    assert len(mlflow_client.search_runs([experiment])) == 2  # the run and its first phase


def test_callbacks_send_steps_and_the_machine_while_training_runs_and_the_phase_at_its_end(
    created_run: Run, mlflow_client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.tracking.callbacks.SECONDS_BETWEEN_UPLOADS", 0.1)
    config = created_run.config
    steps = records(config)
    run_id = start(created_run)
    callbacks = MlflowCallback(created_run), SystemMetricsCallback(created_run)
    for callback in callbacks:
        callback.on_phase_start(phase_info(config, 0), Progress())
    write_steps(created_run, steps[:10])
    wait_until(lambda: steps_of(mlflow_client, run_id) == list(range(1, 11)))
    write_steps(created_run, steps[10:30])
    processor = f"system/{socket.gethostname()}/cpu_utilization_percentage"
    wait_until(lambda: processor in mlflow_client.get_run(run_id).data.metrics)
    write_result(created_run, 0)
    for callback in callbacks:
        callback.on_phase_end(phase_info(config, 0), {})

    assert steps_of(mlflow_client, run_id) == list(range(1, 31))
    assert mlflow_client.get_run(run_id).data.metrics["validation/bits_per_character"] == 3.0


def with_absent_server(run: Run) -> Run:
    return Run(run.paths, load(QUICKSTART, [*SMALL, "tracking.uri=http://127.0.0.1:9"]))


def test_absent_server_is_warned_of_once_and_stops_nothing(
    created_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.tracking.callbacks.SECONDS_BETWEEN_UPLOADS", 0.1)
    run = with_absent_server(created_run)
    config = run.config
    start_run(run)
    warning = "warning: no MLflow server answers at http://127.0.0.1:9: start it, or name another"
    assert capsys.readouterr().err.count(warning) == 1
    callback = MlflowCallback(run)
    callback.on_phase_start(phase_info(config, 0), Progress())
    wait_until(lambda: warning in capsys.readouterr().err)
    write_steps(created_run, records(config)[:10])
    time.sleep(1)
    callback.on_phase_end(phase_info(config, 0), {})
    assert "warning" not in capsys.readouterr().err
    finish_run(run, status="FINISHED")
    assert f"`longformer resume {created_run.paths.root}` sends what is missing" in capsys.readouterr().err
    assert created_run.paths.identity().mlflow_status is None


def test_known_run_keeps_its_id_while_the_server_is_away(created_run: Run) -> None:
    created_run.paths.write_identity(replace(created_run.paths.identity(), mlflow_run_id="a" * 32))
    start_run(with_absent_server(created_run))
    assert created_run.paths.identity().mlflow_run_id == "a" * 32


def test_steps_of_a_run_that_was_done_without_mlflow_are_sent_afterwards(
    finished_run: Run, mlflow_client: MlflowClient
) -> None:
    finish_run(finished_run, status="FINISHED")
    identity = finished_run.paths.identity()
    assert (identity.mlflow_status, identity.mlflow_run_id is not None) == ("FINISHED", True)
    assert steps_of(mlflow_client, str(identity.mlflow_run_id)) == list(range(1, 61))


def test_run_and_steps_whose_arrival_was_not_heard_of_are_not_doubled(
    finished_run: Run, mlflow_client: MlflowClient
) -> None:
    run_id = start(finished_run)
    finish_run(finished_run, status="FINISHED")
    metrics = mlflow_client.get_run(run_id).data.metrics
    finished_run.paths.write_identity(replace(finished_run.paths.identity(), mlflow_run_id=None))
    assert start(finished_run) == run_id
    # As if nothing had been stored: everything is sent again.
    tracked = MlflowRun(finished_run)
    tracked._client = RunWithoutMetrics(tracked._client)
    tracked.send_steps()
    assert steps_of(mlflow_client, run_id) == list(range(1, 61))
    assert mlflow_client.get_run(run_id).data.metrics == metrics


class RunWithoutMetrics:
    """MLflow, but for what runs have: as a client sees it that asks before a late request has been stored."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_run(self, run_id: str) -> entities.Run:
        run = self._client.get_run(run_id)
        return entities.Run(run.info, entities.RunData(metrics=[], params=[], tags=[]))


def test_checkpoints_are_pointers_with_their_manifest_and_go_when_they_are_removed(
    created_run: Run, mlflow_client: MlflowClient
) -> None:
    run_id = start(created_run)
    experiment = mlflow_client.get_run(run_id).info.experiment_id
    tracked = MlflowRun(created_run)
    for step in (10, 20):
        checkpoint = created_run.checkpoints_directory(0) / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights").write_bytes(b"0" * 1000)
        progress = Progress(step=step, global_step=step, tokens=100 * step)
        manifest = Manifest(
            phase="short", phase_index=0, progress=progress, data={}, ranks=2, zero_stage=2, precision="fp32",
            config_fingerprint="", versions={},
        )  # fmt: skip
        manifest.with_files_of(checkpoint).write(checkpoint)
        tracked.send_checkpoints()
    models = mlflow_client.search_logged_models([experiment], order_by=[{"field_name": "creation_timestamp"}])
    assert [model.tags["longformer.path"] for model in models] == [
        f"phases/01-short/checkpoints/step-000000{step}" for step in (10, 20)
    ]
    assert models[1].params | {"step": "20", "tokens": "2000", "ranks": "2", "bytes": "1000"} == models[1].params
    outputs = mlflow_client.get_run(run_id).outputs.model_outputs
    assert {(output.model_id, output.step) for output in outputs} == {
        (models[0].model_id, 10),
        (models[1].model_id, 20),
    }
    stored = list((created_run.paths.root.parent / "mlflow-artifacts" / "models").rglob("*.json"))
    assert [path.name for path in stored] == ["manifest.json"] * 2

    shutil.rmtree(created_run.checkpoints_directory(0) / "step-00000010")
    tracked.send_checkpoints()
    (left,) = mlflow_client.search_logged_models([experiment])
    assert left.model_id == models[1].model_id


def test_run_that_the_store_has_lost_gets_a_new_one(created_run: Run, mlflow_client: MlflowClient) -> None:
    created_run.paths.write_identity(replace(created_run.paths.identity(), mlflow_run_id="a" * 32))
    assert mlflow_client.get_run(start(created_run)).info.status == "RUNNING"


def test_run_without_a_server_address_is_kept_beside_the_run_directories(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    start(finished_run)
    finish_run(finished_run, status="FINISHED")
    runs = finished_run.paths.root.parent
    assert (runs / "mlflow.db").is_file()
    assert list((runs / "mlflow-artifacts").glob("*/artifacts/model/config.json"))
    assert not list(elsewhere.iterdir())
