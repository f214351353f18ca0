"""MLflow follows a run: nothing lost, nothing twice, never in the way. The real MLflow on a real SQLite file."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from example_run import QUICKSTART, SMALL, records, write_result, write_steps
from mlflow.tracking import MlflowClient

from launcher.report import write_report
from launcher.run_directory import RunDirectory
from launcher.run_file import RunConfig
from launcher.tracking import MlflowCallback, finish_run, start_or_continue_run
from longformer.training.records import PhaseInfo, Progress


@pytest.fixture
def mlflow_client(run_directory: RunDirectory, empty_store: Path) -> MlflowClient:
    store = run_directory.path.parent / "mlflow.db"
    shutil.copyfile(empty_store, store)
    return MlflowClient(f"sqlite:///{store}")


def start(directory: RunDirectory) -> str:
    run_id = start_or_continue_run(directory.config(), directory.path)
    assert run_id is not None
    return run_id


def phase_info(config: RunConfig, index: int) -> PhaseInfo:
    phase = config.phases[index]
    return PhaseInfo(
        name=phase.name,
        index=index,
        steps=phase.steps,
        sequence_length=phase.sequence_length,
        batch_size=phase.batch_size,
        ranks=2,
    )


def steps_of(client: MlflowClient, run_id: str, metric: str = "train/loss") -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run_id, metric))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_finished_run_holds_parameters_metrics_phases_report_and_model(
    finished_run: RunDirectory, mlflow_client: MlflowClient
) -> None:
    config = finished_run.config()
    run_id = start(finished_run)
    write_report(finished_run.path)
    finish_run(run_id, config, finished_run.path, status="FINISHED")

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
    assert not list(finished_run.path.rglob("mlruns"))

    phases = mlflow_client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    assert {phase.data.tags["longformer.phase"] for phase in phases} == {"short", "medium", "long"}
    short = next(phase for phase in phases if phase.data.tags["longformer.phase"] == "short")
    assert short.data.params["sequence_length"] == "128"
    assert short.data.metrics["validation/bits_per_character"] == 3.0
    assert short.info.status == "FINISHED"


def test_run_continued_from_an_earlier_checkpoint_logs_no_step_twice(
    run_directory: RunDirectory, mlflow_client: MlflowClient
) -> None:
    config = run_directory.config()
    steps = records(config)
    run_id = start(run_directory)
    write_steps(run_directory, steps[:25])
    finish_run(run_id, config, run_directory.path, status="KILLED")
    assert mlflow_client.get_run(run_id).info.status == "KILLED"

    run_directory.write_identity(replace(run_directory.identity(), mlflow_run_id=run_id))
    assert start(run_directory) == run_id
    assert mlflow_client.get_run(run_id).info.status == "RUNNING"
    write_steps(run_directory, steps[20:40])  # goes on from a checkpoint at step 20
    write_result(run_directory, 0)
    finish_run(run_id, config, run_directory.path, status="FAILED")
    finish_run(run_id, config, run_directory.path, status="FAILED")

    assert mlflow_client.get_run(run_id).info.status == "FAILED"
    assert steps_of(mlflow_client, run_id) == list(range(1, 41))
    assert steps_of(mlflow_client, run_id, "validation/bits_per_character") == [30]
    experiment = mlflow_client.get_run(run_id).info.experiment_id
    assert len(mlflow_client.search_runs([experiment])) == 2  # the run and its first phase


def test_callback_sends_steps_while_training_runs_and_the_phase_at_its_end(
    run_directory: RunDirectory, mlflow_client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.tracking.SECONDS_BETWEEN_UPLOADS", 0.1)
    config = run_directory.config()
    steps = records(config)
    run_id = start(run_directory)
    callback = MlflowCallback(run_id, config, run_directory.path)
    callback.on_phase_start(phase_info(config, 0), Progress())
    write_steps(run_directory, steps[:10])
    wait_until(lambda: steps_of(mlflow_client, run_id) == list(range(1, 11)))
    write_steps(run_directory, steps[10:30])
    wait_until(lambda: any(key.startswith("system/") for key in mlflow_client.get_run(run_id).data.metrics))
    write_result(run_directory, 0)
    callback.on_phase_end(phase_info(config, 0), {})

    assert steps_of(mlflow_client, run_id) == list(range(1, 31))
    assert mlflow_client.get_run(run_id).data.metrics["validation/bits_per_character"] == 3.0
    assert "system/cpu_utilization_percentage" in mlflow_client.get_run(run_id).data.metrics


def test_absent_server_is_warned_of_once_and_stops_nothing(
    run_directory: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.tracking.SECONDS_BETWEEN_UPLOADS", 0.1)
    config = RunConfig.load(QUICKSTART, [*SMALL, "tracking.uri=http://127.0.0.1:9"])
    assert start_or_continue_run(config, run_directory.path) is None
    assert capsys.readouterr().err.count("warning: MLflow") == 1
    callback = MlflowCallback("0" * 32, config, run_directory.path)
    callback.on_phase_start(phase_info(config, 0), Progress())
    wait_until(lambda: "warning: MLflow" in capsys.readouterr().err)
    write_steps(run_directory, records(config)[:10])
    time.sleep(1)
    callback.on_phase_end(phase_info(config, 0), {})
    assert "warning" not in capsys.readouterr().err


def test_known_run_keeps_its_id_while_the_server_is_away(run_directory: RunDirectory) -> None:
    run_directory.write_identity(replace(run_directory.identity(), mlflow_run_id="a" * 32))
    config = RunConfig.load(QUICKSTART, [*SMALL, "tracking.uri=http://127.0.0.1:9"])
    assert start_or_continue_run(config, run_directory.path) == "a" * 32


def test_run_that_the_store_has_lost_gets_a_new_one(run_directory: RunDirectory, mlflow_client: MlflowClient) -> None:
    run_directory.write_identity(replace(run_directory.identity(), mlflow_run_id="a" * 32))
    assert mlflow_client.get_run(start(run_directory)).info.status == "RUNNING"


def test_run_without_a_server_address_is_kept_beside_the_run_directories(
    finished_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    finish_run(start(finished_run), finished_run.config(), finished_run.path, status="FINISHED")
    runs = finished_run.path.parent
    assert (runs / "mlflow.db").is_file()
    assert list((runs / "mlflow-artifacts").glob("*/artifacts/model/config.json"))
    assert not list(elsewhere.iterdir())
