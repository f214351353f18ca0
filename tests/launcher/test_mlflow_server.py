"""MLflow as a real server process: the pages open, and a server that dies in the middle costs no step."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from example_run import QUICKSTART, SMALL, records, write_steps
from mlflow.tracking import MlflowClient

from launcher.run_directory import RunDirectory
from launcher.run_file import RunConfig
from launcher.tracking import MlflowCallback, finish_run, start_or_continue_run
from longformer.training.records import PhaseInfo, Progress

pytestmark = pytest.mark.slow
COMMAND = Path(sys.executable).with_name("longformer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pages(runs: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run `longformer ui` until its pages answer; end it with Ctrl-C unless the test has ended it."""
    log = runs / "ui.log"
    with log.open("w") as output:
        arguments = [COMMAND, "ui", runs, "--port", str(port)]
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=runs)
        try:
            _wait_for(port, process, log)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"no answer in time: {log.read_text()}")


def test_ui_shows_the_run_and_ends_on_ctrl_c_without_a_traceback(finished_run: RunDirectory) -> None:
    config = finished_run.config()
    run_id = start_or_continue_run(config, finished_run.path)
    assert run_id is not None
    finish_run(run_id, config, finished_run.path, status="FINISHED")
    runs = finished_run.path.parent
    port = free_port()
    with pages(runs, port) as process:
        assert "<title>MLflow</title>" in urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
        served = MlflowClient(f"http://127.0.0.1:{port}").get_run(run_id)
        assert served.data.metrics["test/bits_per_character"] == pytest.approx(2.25)
    assert process.returncode == 0
    assert {path.name for path in runs.iterdir()} == {"quickstart", "mlflow.db", "mlflow-artifacts", "ui.log"}
    assert "Traceback" not in (runs / "ui.log").read_text()


def test_server_that_dies_in_the_middle_and_comes_back_has_every_step_once(
    run_directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.tracking.SECONDS_BETWEEN_UPLOADS", 0.5)
    store = tmp_path / "server"
    store.mkdir()
    MlflowClient(f"sqlite:///{store / 'mlflow.db'}").search_experiments()  # an empty store for the server to open
    port = free_port()
    config = RunConfig.load(QUICKSTART, [*SMALL, f"tracking.uri=http://127.0.0.1:{port}"])
    steps = records(config)
    phase = PhaseInfo(name="short", index=0, steps=30, sequence_length=128, batch_size=16, ranks=2)
    with pages(store, port) as server:
        run_id = start_or_continue_run(config, run_directory.path)
        assert run_id is not None
        callback = MlflowCallback(run_id, config, run_directory.path)
        callback.on_phase_start(phase, Progress())
        write_steps(run_directory, steps[:10])
        client = MlflowClient(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 60
        while not client.get_metric_history(run_id, "train/loss"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(server.pid, signal.SIGINT)
        server.wait(30)
    write_steps(run_directory, steps[10:20])
    time.sleep(3)  # several uploads fail
    write_steps(run_directory, steps[20:30])
    with pages(store, port):
        callback.on_phase_end(phase, {})
        finish_run(run_id, config, run_directory.path, status="FINISHED")
        history = client.get_metric_history(run_id, "train/loss")
        assert [point.step for point in history] == list(range(1, 31))
        assert [point.value for point in history] == pytest.approx([record.loss for record in steps[:30]])
        assert client.get_run(run_id).info.status == "FINISHED"
        assert {item.path for item in client.list_artifacts(run_id)} == {"run.yaml"}
    assert list((store / "mlflow-artifacts").rglob("run.yaml"))
