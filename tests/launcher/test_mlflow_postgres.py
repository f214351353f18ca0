"""MLflow as it stands in a cluster, a server on Postgres with accounts, under a real run of four ranks."""

import getpass
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from launcher.cli import main
from launcher.runs.paths import RunPaths
from tests.faults.tiny_run import prepare_text, tiny_config
from tests.launcher.test_mlflow_server import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("initdb"), reason="needs Postgres: initdb and pg_ctl on the PATH"),
    pytest.mark.skipif(find_spec("psycopg2") is None, reason="needs psycopg2"),
]
SECONDS = 600
STEPS = 320


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a new Postgres, which ends with the test; it refuses to run as root, so another user owns it."""
    owner = "postgres" if os.geteuid() == 0 else getpass.getuser()
    user = {"user": owner, "group": pwd.getpwnam(owner).pw_gid} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="longformer-postgres-"))  # pytest's own folders are closed to other users
    port = free_port()
    if user:
        shutil.chown(folder, owner)
    control = ["pg_ctl", "--pgdata", folder / "data", "--wait"]

    def call(*command: object) -> None:
        done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False, **user)
        assert done.returncode == 0, done.stderr

    call("initdb", "--pgdata", folder / "data", "--auth", "trust", "--username", "mlflow", "--no-sync")
    call(*control, "--log", folder / "log", "--options", f"-p {port} -k {folder} -c fsync=off", "start")
    try:
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    finally:
        call(*control, "--mode", "immediate", "stop")
        shutil.rmtree(folder)


@contextmanager
def running(command: list[object], folder: Path, log: Path, **settings: str) -> Iterator[psutil.Popen]:
    """Run a command; it ends with the context, and so does all that it has started."""
    with log.open("a") as output:
        words, environment = list(map(str, command)), os.environ | settings
        process = psutil.Popen(words, stdout=output, stderr=output, cwd=folder, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            for each in [*process.children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()


@contextmanager
def server(database: str, folder: Path, port: int, *options: str) -> Iterator[None]:
    """Run `mlflow server` from when it answers until the context ends."""
    command = [Path(sys.executable).with_name("mlflow"), "server", "--backend-store-uri", database, "--port", port]
    command += ["--artifacts-destination", folder / "artifacts", "--workers", "1", *options]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "server.log"
    with running(command, folder, log, **settings) as process:
        wait_until(lambda: answers(port), process, log)
        yield


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def test_server_killed_and_restarted_under_four_ranks_has_every_point_once(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = prepare_text(tmp_path)
    tiny_config(tmp_path, data, steps=(STEPS - 20, 20), checkpoint_every_steps=100)
    port = free_port()
    run = RunPaths(tmp_path / "runs" / "tiny")
    address = f"http://127.0.0.1:{port}"
    command = [Path(sys.executable).with_name("longformer"), "train", tmp_path / "tiny.yaml", "--ranks", "4"]
    command += ["--run-directory", run.root, f"tracking.uri={address}", f"data.source={tmp_path / 'words.txt'}"]
    log = tmp_path / "train.log"
    with running(command, tmp_path, log) as training:
        with server(database, tmp_path, port):
            wait_until(lambda: points(address, run), training, log)
        # The server is gone, killed; training goes on and notices.
        wait_until(lambda: "no MLflow server answers" in run.log_file(0, 0).read_text(), training, log)
        ranks_and_driver = [training, *training.children(recursive=True)]
        for process in ranks_and_driver:
            process.suspend()  # else so small a run could end before the server is back
        assert steps(run) < STEPS
        with server(database, tmp_path, port):
            assert 0 < len(points(address, run)) < steps(run)
            for process in ranks_and_driver:
                process.resume()
            assert training.wait(SECONDS) == 0, log.read_text()
            assert "Traceback" not in log.read_text()
            expected = [json.loads(line)["loss"] for line in run.metrics_file.read_text().splitlines()]
            assert [point.step for point in points(address, run)] == list(range(1, STEPS + 1))
            assert [point.value for point in points(address, run)] == expected
            client = MlflowClient(address)
            tracked = client.get_run(str(run.identity().mlflow_run_id))
            assert tracked.info.status == "FINISHED"
            artifacts = {item.path for item in client.list_artifacts(tracked.info.run_id)}
            assert artifacts == {"run.yaml", "model", "report"}
            runs = client.search_runs([tracked.info.experiment_id])
            assert len(runs) == 3  # the training and its two phases


def wait_until(condition: Callable[[], object], process: psutil.Popen, log: Path) -> None:
    """Wait for what a process is to bring about; fail with its words where it does not."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def points(address: str, run: RunPaths) -> list:
    run_id = run.identity().mlflow_run_id if run.exists else None
    if run_id is None:
        return []
    return sorted(MlflowClient(address).get_metric_history(run_id, "train/loss"), key=lambda point: point.step)


def steps(run: RunPaths) -> int:
    return len(run.metrics_file.read_text().splitlines())


@pytest.mark.skipif(find_spec("flask_wtf") is None, reason="needs mlflow[auth]")
def test_wrong_credentials_are_told_in_one_sentence_that_does_not_repeat_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "for this test only")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "for this test only")
    monkeypatch.chdir(tmp_path)
    port = free_port()
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with server(store, tmp_path, port, "--app-name", "basic-auth"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:unguessable@127.0.0.1:{port}")
        assert main(["promote", "letters"]) == 1
        sentence = (
            f"error: the MLflow server http://127.0.0.1:{port} refuses these credentials: set MLFLOW_TRACKING_USERNAME"
        )
        said = capsys.readouterr().err
        assert said.startswith(sentence)
        assert said.count("\n") == 1
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "for this test only")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        assert main(["promote", "letters"]) == 2
        assert "there is no model letters in http://127.0.0.1" in capsys.readouterr().err
