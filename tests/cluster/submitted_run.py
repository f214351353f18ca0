"""A run in Slurm's hands, seen as a user sees it, and what may happen to it there."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from launcher.runs.paths import RunPaths

COMMAND = (sys.executable, "-m", "launcher.cli")
PATIENCE_SECONDS = 600


class SubmittedRun:
    """A run and its jobs, of which the first is meant where none is named."""

    def __init__(self, directory: Path, *jobs: str) -> None:
        self.run = RunPaths(directory)
        self.jobs = jobs
        self.job = jobs[0]

    def status(self) -> Any:
        """Return what `longformer status` says."""
        return json.loads(longformer("status", self.run.root, "--json").stdout)

    def slurm(self, field: str, job: str | None = None) -> str:
        """Return a field of `scontrol show job`."""
        shown = slurm("scontrol", "show", "job", job or self.job)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)[field]

    def wait(self, condition: Callable[[], bool], *, pause_seconds: float = 0.5) -> None:
        """Wait until something is true; fail with Slurm's words and the job's where it does not become so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.told()
            time.sleep(pause_seconds)

    def wait_for_steps(self, steps: int = 5) -> None:
        """Wait until so many steps have been recorded."""
        self.wait(lambda: len(self.losses()) >= steps, pause_seconds=0.02)

    def wait_for_the_end(self, state: str = "COMPLETED") -> None:
        """Wait until the job is in none but a last state, and that in the one expected."""
        self.wait(lambda: self.slurm("JobState") not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"))
        assert self.slurm("JobState") == state, self.told()

    def wait_in_the_queue(self, restarts: int = 1) -> None:
        """Wait until the job is back in the queue; then let it start, which Slurm puts off, with time enough to end."""
        self.wait(lambda: self.slurm("Restarts") == str(restarts) and self.slurm("JobState") == "PENDING")
        # A start that follows at once would be taken for ended when the last word of the one before arrives.
        daemon = f"slurmstepd: [{self.job}.batch]"
        self.wait(lambda: not any(daemon in command_line(process) for process in psutil.process_iter(["cmdline"])))
        time.sleep(3)  # what was permitted in the second in which the last start was ended is taken back, too
        slurm("scontrol", "update", f"JobId={self.job}", "StartTime=now", "TimeLimit=60")

    def told(self) -> str:
        """Return what Slurm knows of the job, and what the driver has printed."""
        return slurm("scontrol", "show", "job", self.job) + self.words()

    def words(self) -> str:
        """Return what the driver has printed."""
        return self.run.job_log.read_text() if self.run.job_log.exists() else "no word"

    def losses(self) -> list[tuple[int, float]]:
        """Return (global step, loss) of every record."""
        lines = self.run.metrics_file.read_text().splitlines(keepends=True) if self.run.metrics_file.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [(record["global_step"], record["loss"]) for record in records]

    def scores(self) -> list[float]:
        """Return the bits per character of the finished phases on held-out text."""
        files = sorted(self.run.root.glob("phases/*/result/evaluation.json"))
        return [json.loads(file.read_text())["validation"]["bits_per_character"] for file in files]

    def checkpoints(self) -> list[str]:
        """Return the names of the first phase's committed checkpoints."""
        return sorted(path.name for path in self.run.root.glob("phases/01-short/checkpoints/step-*"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the ranks from going on while the block runs."""
        code = str(self.run.submission_directory)
        ranks = [
            process
            for process in psutil.process_iter(["cmdline", "environ"])
            if "multiprocessing.forkserver" in str(process.info["cmdline"])
            and (process.info["environ"] or {}).get("PYTHONPATH", "").startswith(code)
        ]
        assert ranks
        for process in ranks:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in ranks:
                process.send_signal(signal.SIGCONT)


def command_line(process: psutil.Process) -> str:
    """Return the command line of a process that `process_iter` has looked at."""
    return " ".join(process.info["cmdline"] or [])


def submit(run_file: Path, directory: Path, *options: object, user: Sequence[str] = ()) -> SubmittedRun:
    """Submit a run over two nodes.

    Args:
        run_file: what is trained.
        directory: where the run is to lie.
        options: more options of `submit`, and overrides.
        user: a command that begins as root and goes on as the user who submits.
    """
    answer = longformer(
        "submit", run_file, "--nodes", 2, "--time", 60, "--run-directory", directory, *options, user=user
    )
    assert answer.returncode == 0, answer.stderr
    return SubmittedRun(directory, *answer.stdout.split(";")[0].removeprefix("job ").split(", "))


def longformer(*arguments: object, user: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command line, as another user if wished."""
    return subprocess.run([*user, *COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def slurm(*command: str) -> str:
    """Run a command of Slurm or of the testbed and return what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
