"""One node's part of a phase under Slurm: starts and watches the node's ranks, and writes down how they ended."""

import json
import os
import sys
from pathlib import Path

from launcher.backends.local.backend import LocalBackend
from launcher.backends.local.rank import RanksHere
from launcher.backends.slurm.backend import start_of_this_job
from launcher.runs.run import Run
from launcher.training.phases import PhaseTask
from launcher.training.signals import signals_noted
from longformer.files import write_json


def main(written_task: str, rendezvous: str) -> None:
    """Runs this node's share of a phase's ranks; the node's place is in Slurm's environment.

    Args:
        written_task: the PhaseTask as JSON.
        rendezvous: where the ranks of all nodes meet.
    """
    content = json.loads(written_task)
    checkpoints = [content[name] and Path(content[name]) for name in ("resume_from", "optimizer_from")]
    run = Run.open(Path(content["run_directory"]))
    task = PhaseTask(run, content["phase_index"], content["ranks"], *checkpoints)
    node, nodes = int(os.environ["SLURM_NODEID"]), int(os.environ["SLURM_STEP_NUM_NODES"])
    share = task.ranks // nodes
    here = RanksHere(range(node * share, (node + 1) * share), rendezvous)

    def warn(message: str) -> None:
        print(f"warning: node {node}: {message}", file=sys.stderr, flush=True)

    # Slurm signals every process of a step, and so does the driver: all of it is one request to stop.
    with signals_noted(max_requests=1) as stop:
        ending = LocalBackend(stop, None, warn).run_ranks(task, here)
    write_json(
        run.paths.node_file(task.phase_index, node, start_of_this_job()),
        {"status": ending.outcome.status.value, "message": ending.outcome.message, "severity": ending.severity},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
