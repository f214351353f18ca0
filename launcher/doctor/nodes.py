"""The doctor on every node of a Slurm job: one srun starts it everywhere, and the findings come back as lines of text.

Nothing is taken for granted but srun: storage, names, ports and clocks between the nodes are what is examined.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher.doctor.clocks import check_clock, clock_served
from launcher.doctor.examination import LONGEST_SECONDS, checks_of_this_machine, examine
from launcher.doctor.finding import Finding, Level
from launcher.doctor.shared import answer_arrived, check_shared, shared_folder
from longformer.errors import LongformerError

_SECONDS_TO_START = 60.0
"""How long srun may take to start Python everywhere, besides the checks themselves."""


def examine_nodes(directory: Path, tracking: str | None) -> dict[str, list[Finding]]:
    """Returns the findings of every node of this process's Slurm job, by the node's name.

    Raises:
        LongformerError: this process is not in a job, the directory cannot be written, or srun does not start.
    """
    if "SLURM_JOB_NUM_NODES" not in os.environ:
        raise LongformerError(
            "--nodes works inside a Slurm job; `salloc --nodes 2 longformer doctor --nodes` makes one for the moment"
        )
    try:
        with shared_folder(directory) as folder, clock_served() as (host, port):
            task: dict[str, Any] = {
                "directory": str(directory.absolute()),
                "tracking": tracking,
                "folder": str(folder),
                "clock": [host, port],
            }
            found = _run_everywhere(task)
            for node in found:
                found[node].append(answer_arrived(folder, node))
    except OSError as error:
        raise LongformerError(f"the nodes cannot be examined: {error}") from error
    silence = Finding("node", Level.MISS, "nothing was heard of it", "See with `sinfo -R` why Slurm cannot use it.")
    return found | {node: [silence] for node in _nodes_of_this_job() if node not in found}


def _run_everywhere(task: dict[str, Any]) -> dict[str, list[Finding]]:
    nodes = os.environ["SLURM_JOB_NUM_NODES"]
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--mpi=none"]
    command += ["--kill-on-bad-exit=0", sys.executable, "-m", "launcher.doctor.nodes", json.dumps(task)]
    # Its own session: what hangs is ended with srun, which ends it on all nodes.
    step = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = step.communicate(timeout=_SECONDS_TO_START + LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        step.kill()
        output, _ = step.communicate()
    found: dict[str, list[Finding]] = {}
    for line in output.splitlines():
        if line.startswith(_MARK):
            node, content = json.loads(line.removeprefix(_MARK))
            found.setdefault(node, []).append(Finding(**content | {"level": Level(content["level"])}))
    return found


_MARK = "longformer doctor: "
"""Tells our lines from what modules and profiles print."""


def _nodes_of_this_job() -> list[str]:
    names = os.environ["SLURM_JOB_NODELIST"]
    command = ["scontrol", "show", "hostnames", names]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS_TO_START)
    return answer.stdout.split()


def _answer(written_task: str) -> None:
    """Examines this node and prints a line per finding; srun passes on lines whole, if they are short."""
    task = json.loads(written_task)
    node = os.environ["SLURMD_NODENAME"]
    checks = checks_of_this_machine(Path(task["directory"]), task["tracking"])
    checks["shared storage"] = lambda: check_shared(Path(task["folder"]), node)
    checks["clock"] = lambda: check_clock((task["clock"][0], task["clock"][1]))
    for finding in examine(checks):
        print(_MARK + json.dumps([node, asdict(finding)]), flush=True)
    os._exit(0)  # not held up by a check that hangs


if __name__ == "__main__":
    _answer(sys.argv[1])
