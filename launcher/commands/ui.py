"""`longformer ui`: the MLflow pages over the runs of a folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from launcher.config.mlflow_address import address_of_file, without_credentials
from longformer.errors import LongformerError


def ui(
    runs: Annotated[Path, typer.Argument(metavar="RUNS_DIR", help="Folder of run directories.")] = Path("runs"),
    uri: Annotated[str | None, typer.Option(help="Another MLflow store instead, such as postgresql://...")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> int:
    """Open the MLflow pages of the runs in RUNS_DIR; Ctrl-C ends them."""
    if uri and uri.startswith("http"):
        raise LongformerError(f"{uri} is a server with pages of its own: open it in a browser")
    store = uri or address_of_file(_database(runs))
    shown = without_credentials(store)
    print(f"MLflow over {shown}: open http://{host}:{port} in a browser; Ctrl-C ends it", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", host, "--port", str(port)]
    # One worker starts fast and is enough for one reader. In its own session Ctrl-C does not reach the server, which
    # would answer with a traceback; it is ended in good order instead, and a SIGTERM of ours passed on likewise.
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    options = ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    if not uri:  # what clients send goes there too, not into the working directory
        options += ["--artifacts-destination", (runs.resolve() / "mlflow-artifacts").as_uri()]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = subprocess.Popen([*command, *options], env=settings | os.environ, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0


def _database(runs: Path) -> Path:
    database = runs.resolve() / "mlflow.db"
    if not database.is_file():
        raise LongformerError(
            f"{runs} holds no tracked runs (no mlflow.db); give the folder the run directories are in, or --uri"
        )
    return database
