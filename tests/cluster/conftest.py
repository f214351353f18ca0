"""A real Slurm of three virtual nodes, and a run of three short phases to submit to it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.submitted_run import SubmittedRun, submit
from tests.faults.tiny_run import prepare_text, tiny_config

HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """Put the commands of a running three-node Slurm first in PATH; return a directory that all its users share."""
    if os.geteuid() != 0:
        pytest.skip("the Slurm testbed needs root")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [command for command in NEEDED if shutil.which(command, path=path) is None]
    if missing:
        pytest.skip(
            f"the Slurm testbed needs {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge iproute2)"
        )
    # Not among pytest's own, which other users cannot read; sockets need a short path.
    directory = Path(tempfile.mkdtemp(prefix="longformer-testbed-"))
    shared = directory / "shared"
    shared.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{directory / 'bin'}:{path}")
        patch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            subprocess.run(["bash", HERE / "testbed_up.sh", directory], check=True)
            shared.chmod(0o1777)
            yield shared
        finally:
            subprocess.run(["bash", HERE / "testbed_down.sh", directory], check=True)


@pytest.fixture(scope="session")
def run_file(cluster: Path) -> Path:
    """The run file of three short phases."""
    tiny_config(cluster, prepare_text(cluster), steps=(80, 20))
    path = cluster / "tiny.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"]["source"] = str(cluster / "words.txt")
    third = content["phases"][1] | {"name": "longest", "sequence_length": 64, "windows": [16, 16]}
    content["phases"].append(third)
    for phase in content["phases"]:
        phase["learning_rate"] = 2e-3  # slow enough that every phase has something left to learn
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def short_run_file(run_file: Path) -> Path:
    """The run file of the first of the three phases."""
    return first_phases(run_file, 1)


@pytest.fixture(scope="session")
def two_phases(run_file: Path) -> Path:
    """The run file of the first two."""
    return first_phases(run_file, 2)


@pytest.fixture(scope="session")
def undisturbed(cluster: Path, two_phases: Path) -> SubmittedRun:
    """Two phases that Slurm has carried out from beginning to end."""
    run = submit(two_phases, cluster / "undisturbed")
    run.wait_for_the_end()
    return run


def first_phases(run_file: Path, phases: int) -> Path:
    """Write a run file of so many phases beside the one of all; return where it is."""
    content = yaml.safe_load(run_file.read_text())
    path = run_file.with_name(f"{phases}-phases.yaml")
    path.write_text(yaml.safe_dump(content | {"phases": content["phases"][:phases]}))
    return path
