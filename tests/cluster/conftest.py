"""A real Slurm of two virtual nodes, and a run of three short phases to submit to it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.faults.tiny_run import prepare_text, tiny_config

HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the commands of a running two-node Slurm first in PATH; the directory of its testbed."""
    if os.geteuid() != 0:
        pytest.skip("the Slurm testbed needs root")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [command for command in NEEDED if shutil.which(command, path=path) is None]
    if missing:
        pytest.skip(f"the Slurm testbed needs {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)")
    directory = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{directory / 'bin'}:{path}")
        patch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            subprocess.run(["bash", HERE / "testbed_up.sh", directory], check=True)
            yield directory
        finally:
            subprocess.run(["bash", HERE / "testbed_down.sh", directory], check=True)


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of three short phases."""
    directory = tmp_path_factory.mktemp("words")
    tiny_config(directory, prepare_text(directory), steps=(40, 20))
    path = directory / "tiny.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"]["source"] = str(directory / "words.txt")
    third = content["phases"][1] | {"name": "longest", "sequence_length": 64, "windows": [16, 16]}
    content["phases"].append(third)
    for phase in content["phases"]:
        phase["learning_rate"] = 2e-3  # slow enough that every phase has something left to learn
    path.write_text(yaml.safe_dump(content))
    return path
