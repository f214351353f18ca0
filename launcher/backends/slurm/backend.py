"""The Slurm backend: the ranks of a phase over the nodes of the job that the driver runs in, started by one srun.

On every node one process (`slurm_node`) starts that node's ranks and watches them, as the local backend does,
and tells the driver how they ended through a file in the run directory, which must be on shared storage.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.backends.local.backend import LEAST_SEVERE, Ending
from launcher.training.phases import LostRanks, Outcome, PhaseTask, Status
from launcher.training.signals import StopFlag
from longformer.errors import LongformerError
from longformer.files import write_json

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_FOLLOW = {Status.STOPPED: 60.0, Status.ROLLED_BACK: 60.0, Status.FAILED: 5.0}
"""How long the other nodes may take to end after the first has ended so."""
_SECONDS_TO_STOP = 330.0
"""How long nodes may take from a request to stop to their end; each gives its ranks 300."""


@dataclass
class SlurmBackend:
    """Runs phases on all nodes of this process's Slurm job.

    Args:
        stop: the driver's flag; the first request is passed on to the nodes, the second ends them. The stop file in
            the run directory reaches the nodes by itself.
        nodes: how many nodes the job has; they share the ranks evenly.
    """

    stop: StopFlag
    nodes: int

    def run_phase(self, task: PhaseTask) -> Outcome:
        """Runs the ranks of a phase; tells how the first node that did not complete ended, or that all completed."""
        files = [task.run.paths.node_file(task.phase_index, node, start_of_this_job()) for node in range(self.nodes)]
        for file in files:
            file.unlink(missing_ok=True)
        step = subprocess.Popen(self._command(task), stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            self._wait(step, files)
        finally:
            step.terminate()  # srun then kills what is left on all nodes
            code = step.wait()
        endings = [ending for file in files if (ending := _ending(file))]
        failures = [ending for ending in endings if ending.outcome.status is not Status.COMPLETED]
        first = min(failures, key=lambda ending: ending.severity, default=None)
        # A rank that loses the others fails too, in some way, so that only a failure with a clear cause counts here.
        if first is not None and (len(endings) == self.nodes or first.severity < LEAST_SEVERE):
            return first.outcome
        if len(endings) == self.nodes:
            return Outcome(Status.COMPLETED)
        if self.stop():
            return Outcome(Status.STOPPED)
        silent = ", ".join(str(node) for node, file in enumerate(files) if not file.exists())
        return _after_loss(task, f"srun ended with code {code} and of node {silent} of the job nothing was heard")

    def _command(self, task: PhaseTask) -> list[str]:
        processors = os.environ.get("SLURM_CPUS_PER_TASK")  # steps do not inherit it
        return [
            "srun",
            f"--nodes={self.nodes}",
            f"--ntasks={self.nodes}",
            "--ntasks-per-node=1",
            *([f"--cpus-per-task={processors}"] if processors else []),
            "--kill-on-bad-exit=1",  # ends well on a node unless the node itself is lost, however its ranks end
            "--wait=0",
            "--mpi=none",
            sys.executable,
            "-m",
            "launcher.backends.slurm.node",
            _written(task),
            f"tcp://{socket.gethostname()}:{_free_port()}",
        ]

    def _wait(self, step: subprocess.Popen[bytes], files: list[Path]) -> None:
        """Returns when the step has ended, or when what still runs of it must not go on."""
        passed_on = 0
        deadline = float("inf")
        first: Ending | None = None
        while step.poll() is None and time.monotonic() < deadline:
            if self.stop.requests > 1:
                return
            if self.stop.requests > passed_on:
                passed_on = self.stop.requests
                deadline = min(deadline, time.monotonic() + _SECONDS_TO_STOP)
                step.send_signal(signal.SIGUSR1)  # which srun passes on
            if first is None:
                endings = [ending for file in files if (ending := _ending(file))]
                first = next((ending for ending in endings if ending.outcome.status is not Status.COMPLETED), None)
                if first is not None:
                    deadline = min(deadline, time.monotonic() + _SECONDS_TO_FOLLOW[first.outcome.status])
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _written(task: PhaseTask) -> str:
    """Returns a task as JSON, for `node`."""
    paths = {
        "run_directory": task.run.paths.root,
        "resume_from": task.resume_from,
        "optimizer_from": task.optimizer_from,
    }
    return json.dumps(
        {name: path and str(path) for name, path in paths.items()}
        | {"phase_index": task.phase_index, "ranks": task.ranks}
    )


def start_of_this_job() -> str:
    """Returns what tells this start of a Slurm job from all others: a node that was cut off may end an earlier."""
    return f"{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def nodes_of_this_job(*, ranks: int) -> int:
    """Returns over how many nodes a Slurm job shares so many ranks.

    Raises:
        LongformerError: this process is not in a Slurm job, or the nodes cannot share the ranks evenly.
    """
    written = os.environ.get("SLURM_JOB_NUM_NODES")
    if written is None:
        raise LongformerError(
            "--backend slurm works inside a Slurm job; `longformer submit RUN.yaml --backend slurm` makes one"
        )
    nodes = int(written)
    if ranks % nodes:
        raise LongformerError(f"--ranks {ranks} cannot be shared evenly by the {nodes} nodes of this Slurm job")
    return nodes


def _after_loss(task: PhaseTask, what: str) -> Outcome:
    """Returns how to go on after a node was lost, which is counted over all starts of this job."""
    run = task.run
    file = run.paths.lost_ranks_file(os.environ["SLURM_JOB_ID"])
    max_failures = run.config.cluster.max_failures
    before = LostRanks(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else LostRanks()
    lost = before.one_more(run.checkpoints_directory(task.phase_index))
    write_json(file, asdict(lost))
    if lost.count > max_failures:
        return Outcome(Status.FAILED, lost.message(what, max_failures=max_failures))
    return Outcome(Status.LOST, f"{what}; the next start goes on from the last checkpoint")


def _ending(file: Path) -> Ending | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Ending(Outcome(Status(content["status"]), content["message"]), content["severity"])


def _free_port() -> int:
    """Returns a port that nobody on this node listens on, so that jobs that share the node do not meet."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
