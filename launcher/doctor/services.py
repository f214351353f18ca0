"""Slurm, Ray and MLflow as far as they can be reached from here; none of them is needed to train on one machine."""

import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path

from launcher.config.mlflow_address import store_of, without_credentials
from launcher.doctor.finding import Finding, Level

_SECONDS = 15.0


def check_slurm() -> list[Finding]:
    """Asks Slurm's controller what it offers."""
    if shutil.which("sinfo") is None:
        remedy = "Only `longformer submit --backend slurm` needs it: work on a machine of the cluster."
        return [Finding("Slurm", Level.WARN, "not here", remedy)]
    remedy = "See with `scontrol ping` whether the controller is up, and with `munge -n | unmunge` whether munge works."
    try:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%R (%D nodes)"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return [Finding("Slurm", Level.WARN, f"its controller does not answer within {_SECONDS:g} seconds", remedy)]
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        return [Finding("Slurm", Level.WARN, f"its controller does not answer: {reason}", remedy)]
    return [Finding("Slurm", Level.OK, f"partitions {', '.join(answer.stdout.splitlines())}")]


def check_ray() -> list[Finding]:
    """Checks whether the Ray cluster that RAY_ADDRESS names can be reached."""
    if find_spec("ray") is None:
        return []  # the check of packages has said so
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").removeprefix("http://").rpartition(":")
    if not port.isdigit():
        return [Finding("Ray", Level.OK, "RAY_ADDRESS names no cluster")]
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except OSError as error:
        remedy = "Start the cluster (`ray start --head`), or correct or unset RAY_ADDRESS."
        return [Finding("Ray", Level.WARN, f"{address} does not answer: {error}", remedy)]
    return [Finding("Ray", Level.OK, f"{address} answers")]


def check_mlflow(directory: Path, tracking: str | None) -> list[Finding]:
    """Asks the MLflow store for its experiments, with the credentials of the environment.

    Args:
        directory: of the runs.
        tracking: its address; None = the embedded store beside the runs, made by the first of them.
    """
    if tracking is None and not (directory / "mlflow.db").exists():
        return [Finding("MLflow", Level.OK, "the first run will make an embedded store beside the runs")]
    from mlflow.tracking import MlflowClient  # which takes seconds to import and may be broken

    store = "the embedded store" if tracking is None else without_credentials(tracking)
    try:
        MlflowClient(tracking or store_of(directory)).search_experiments(max_results=1)
    except Exception as error:  # each kind of store has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [_mlflow_failure(store, without_credentials(reason), is_embedded=tracking is None)]
    return [Finding("MLflow", Level.OK, f"{store} answers")]


def _mlflow_failure(store: str, reason: str, *, is_embedded: bool) -> Finding:
    """Returns a warning only: runs are trained without MLflow, and their steps sent when it is back."""
    remedy = f"Start the server at {store}, or correct tracking.uri in the run file."
    if is_embedded:
        remedy = "Move mlflow.db away; a new one is made beside the runs."
    if "401" in reason or "403" in reason:
        remedy = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)."
    return Finding("MLflow", Level.WARN, f"{store} does not answer: {reason[:200]}", remedy)
