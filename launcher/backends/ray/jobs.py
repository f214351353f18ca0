"""The job server of a Ray cluster, spoken to over HTTP: the machine that submits needs no Ray of its own.

A job is named by its whole URL, http://HOST:8265/api/jobs/NAME, which says where to ask for it too.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from longformer.errors import LongformerError

_SECONDS_TO_ANSWER = 20.0
_OVER = ("STOPPED", "SUCCEEDED", "FAILED")


def check_address(address: str | None) -> str:
    """Returns the address of a cluster's dashboard, http://HOST:8265.

    Raises:
        LongformerError: it is not one.
    """
    if address is None or not address.startswith(("http://", "https://")):
        raise LongformerError(
            f"--address is {address or 'missing'}: name the dashboard of a Ray cluster, such as http://HOST:8265"
        )
    return address.rstrip("/")


def submit_job(address: str, command: str, *, name: str) -> str:
    """Lets a cluster start a command on its head and returns the job's URL.

    Args:
        address: of the cluster's dashboard.
        command: for the shell.
        name: what the job's number begins with.

    Raises:
        LongformerError: no cluster answers there, or it refuses the job.
    """
    jobs = f"{address}/api/jobs/"
    number = f"{name}-{os.urandom(4).hex()}"
    answer = _ask(jobs, {"entrypoint": command, "submission_id": number})
    return jobs + str(answer["submission_id"])


def queued_job(jobs: Sequence[str]) -> tuple[str, str, str] | None:
    """Returns the first of some jobs that is not over: its URL, state and what Ray says about it.

    A cluster that does not answer is taken for gone, and its jobs with it.
    """
    for job in jobs:
        try:
            answer = _ask(job)
        except LongformerError:
            return None
        if answer["status"] not in _OVER:
            return job, answer["status"], str(answer["message"]).rstrip(".")
    return None


def stop_jobs(jobs: Sequence[str]) -> None:
    """Ends jobs; those that are over stay as they are."""
    for job in jobs:
        _ask(f"{job}/stop", {})


def _ask(url: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the answer to a GET, or to a POST of some content."""
    headers = {"Content-Type": "application/json"}
    if "RAY_AUTH_TOKEN" in os.environ:
        headers["Authorization"] = f"Bearer {os.environ['RAY_AUTH_TOKEN']}"
    data = None if content is None else json.dumps(content).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=_SECONDS_TO_ANSWER) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        words = error.read().decode(errors="replace").strip().splitlines()
        raise LongformerError(f"the Ray cluster refuses {url}: {words[-1] if words else error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise LongformerError(
            f"no Ray dashboard answers at {url.partition('/api/')[0]} ({reason}); give the address that `ray start "
            "--head` printed for it, such as http://HOST:8265 (the cluster needs pip install 'ray[default]')"
        ) from None
