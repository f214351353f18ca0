"""The run directory: where everything of a run lies, who may write there, and the small files that say how it goes.

Nothing else in the system builds these paths; those of a phase are in `launcher.runs.run`.
"""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from json import loads
from pathlib import Path
from typing import Any

from longformer.errors import LongformerError
from longformer.files import write_atomically, write_json


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a run keeps for life, however often it is interrupted; identity.json."""

    created: str
    ranks: int
    config_fingerprint: str
    data_directory: str
    """Absolute, so that the run can be resumed from any working directory."""
    data_fingerprint: str
    mlflow_run_id: str | None = None
    mlflow_status: str | None = None
    """With which status MLflow has everything of the run; None while something may be missing there."""
    start_model: str | None = None
    """Exactly which model the run starts from, as `init` or the task named it when the run was created."""


@dataclass(frozen=True)
class RunPaths:
    """Paths and small files of a run."""

    root: Path

    @property
    def in_shell(self) -> str:
        """The run directory as a shell is to read it: quoted where it has to be."""
        return shlex.quote(str(self.root))

    @property
    def config_file(self) -> Path:
        """The resolved run file."""
        return self.root / "run.yaml"

    @property
    def metrics_file(self) -> Path:
        """One StepRecord a line, written by rank 0."""
        return self.root / "metrics.jsonl"

    @property
    def evaluations_file(self) -> Path:
        """One evaluation within a phase a line, written by rank 0."""
        return self.root / "evaluations.jsonl"

    @property
    def job_log(self) -> Path:
        """What the driver of a submitted run printed."""
        return self.root / "logs" / "job.log"

    def node_file(self, phase_index: int, node: int, start: str) -> Path:
        """How the ranks of a node of a cluster ended in a phase, for the driver of that start of the job."""
        return self.root / "logs" / f"phase-{phase_index + 1:02d}-node-{node}-{start}.json"

    def lost_ranks_file(self, job: str) -> Path:
        """How often a job of a cluster, over all its starts, has lost ranks."""
        return self.root / "logs" / f"losses-{job}.json"

    @property
    def ranks_file(self) -> Path:
        """Where each rank of a run on a Ray cluster is just now, kept up to date by the driver."""
        return self.root / "ranks.json"

    @property
    def submission_directory(self) -> Path:
        """Runs file, code, script and number of the latest submitted job."""
        return self.root / "submission"

    @property
    def report_directory(self) -> Path:
        """Summary and plots of the finished run."""
        return self.root / "report"

    def log_file(self, phase_index: int, rank: int) -> Path:
        """What a rank printed in a phase."""
        return self.root / "logs" / f"phase-{phase_index + 1:02d}-rank-{rank}.log"

    def all_checkpoints(self) -> list[Path]:
        """Returns the committed checkpoints of all phases."""
        return sorted(self.root.glob("phases/*/checkpoints/step-*"))

    @property
    def start_directory(self) -> Path:
        """The model that the first phase starts from, where the run does not start from random weights."""
        return self.root / "start"

    @property
    def export_directory(self) -> Path:
        """The trained model in the form in which it leaves the run, where its task has one."""
        return self.root / "export"

    @property
    def registration_file(self) -> Path:
        """Which version of a registered model the finished run has become, where its run file names one."""
        return self.root / "registration.json"

    @property
    def exists(self) -> bool:
        """Whether a run has been started here."""
        return (self.root / "identity.json").exists()

    def identity(self) -> Identity:
        """Returns what was decided when the run was created.

        Raises:
            LongformerError: this is not a run directory.
        """
        try:
            return Identity(**loads((self.root / "identity.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise LongformerError(f"{self.root} is not a run directory: it has no identity.json") from None
        except (OSError, ValueError, TypeError) as error:
            raise LongformerError(f"{self.root}/identity.json cannot be read ({error})") from error

    def write_identity(self, identity: Identity) -> None:
        """Replaces identity.json."""
        write_json(self.root / "identity.json", asdict(identity))

    def skipped_batches(self, phase_index: int) -> frozenset[int]:
        """Returns where in a phase's order the global batches begin that are not to be trained on."""
        return frozenset(entry["position"] for entry in self._skipped() if entry["phase_index"] == phase_index)

    def skip_batch(self, phase_index: int, position: int, reason: str) -> None:
        """Never train again on the global batch at a position of a phase's order."""
        entry = {"phase_index": phase_index, "position": position, "reason": reason}
        write_json(self._skipped_file, [*self._skipped(), entry])

    def latest_skip_reason(self) -> str:
        """Returns why the batch was left out that was left out last."""
        return str(self._skipped()[-1]["reason"])

    def _skipped(self) -> list[dict[str, Any]]:
        return loads(self._skipped_file.read_text(encoding="utf-8")) if self._skipped_file.exists() else []

    @property
    def _skipped_file(self) -> Path:
        return self.root / "left-out-batches.json"

    def ranks(self) -> list[dict[str, Any]]:
        """Returns where each rank of a run on a Ray cluster was last seen: the fields of a Heartbeat each."""
        try:
            return list(loads(self.ranks_file.read_text(encoding="utf-8"))["ranks"])
        except FileNotFoundError:
            return []

    def request_stop(self, *, save: bool) -> None:
        """Asks whoever runs here to stop: at the next step border with a checkpoint, or at once.

        Raises:
            LongformerError: nobody runs here.
        """
        if not self.is_running():
            raise LongformerError(f"no run is going on in {self.root}")
        write_atomically(self._stop_file, b"save" if save else b"now")

    def stop_requests(self) -> int:
        """Returns how urgently `request_stop` asked, in the terms of signals: 0 not at all, 1 once, 2 at once."""
        try:
            return {b"save": 1, b"now": 2}.get(self._stop_file.read_bytes().strip(), 1)
        except FileNotFoundError:
            return 0

    def is_running(self) -> bool:
        """Returns whether a driver or a rank of it holds the directory."""
        try:
            with (self.root / ".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def latest_owner(self) -> int | None:
        """Returns the process of the driver that holds the directory, or held it last; None where none has."""
        try:
            return int((self.root / ".lock").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    @property
    def _stop_file(self) -> Path:
        return self.root / "stop"

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Makes the directory, hold it against every other process, and yields the lock's file descriptor.

        Whoever inherits the descriptor holds the lock too: workers that outlive a killed driver keep a new
        one out until they are gone.

        Raises:
            LongformerError: another live process uses the directory, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise LongformerError(f"cannot write to the run directory {self.root}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode()
            os.close(descriptor)
            raise LongformerError(
                f"{self.root} is in use by another run (process {owner}); wait for it or stop it"
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            self._stop_file.unlink(missing_ok=True)  # it was meant for an earlier one
            yield descriptor
        finally:
            os.close(descriptor)


class MetricsFollower:
    """Reads what was appended to a JSON Lines file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_identity: int | None = None
        self._offset = 0

    def new_records(self) -> list[dict[str, Any]]:
        """Returns the records written since the last call; none while the file does not exist."""
        try:
            with self._path.open("rb") as file:
                identity = os.fstat(file.fileno()).st_ino
                if identity != self._file_identity:  # a cut-back file is a new file under the old name
                    self._file_identity, self._offset = identity, 0
                file.seek(self._offset)
                appended = file.read()
        except FileNotFoundError:
            return []
        whole = appended[: appended.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
