"""MLflow as a real server process: the pages open, and a server that dies in the middle costs no step."""

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
from mlflow.tracking import MlflowClient

from launcher.runs.run import Run
from launcher.tracking.callbacks import finish_run, start_run

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


def test_ui_shows_the_run_and_ends_on_ctrl_c_without_a_traceback(finished_run: Run) -> None:
    start_run(finished_run)
    finish_run(finished_run, status="FINISHED")
    run_id = finished_run.paths.identity().mlflow_run_id
    assert run_id is not None
    runs = finished_run.paths.root.parent
    port = free_port()
    with pages(runs, port) as process:
        assert "<title>MLflow</title>" in urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
        served = MlflowClient(f"http://127.0.0.1:{port}").get_run(run_id)
        assert served.data.metrics["test/bits_per_character"] == pytest.approx(2.25)
    assert process.returncode == 0
    assert {path.name for path in runs.iterdir()} == {"quickstart", "mlflow.db", "mlflow-artifacts", "ui.log"}
    assert "Traceback" not in (runs / "ui.log").read_text()
