"""Shared by all tests: where the real data is, single-threaded torch, no deadlines, and a server of ranks."""

import os
import signal

from longformer.cpu.openmp import wait_policy

# Read once, when torch is loaded, and inherited by whatever a test starts. The tests of two workers and the ranks they
# start share the cores of the machine: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(wait_policy())

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if find_spec("triton") is not None and not torch.cuda.is_available():
    # Triton reads this when it is first imported, by whichever test, and its functions stay interpreted from then on.
    os.environ["TRITON_INTERPRET"] = "1"

# No test depends on the clock.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Heed Control-C, for the processes that tests start: a shell lets what it puts into the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data sets, or skip the test with the reason where it is absent."""
    folder = Path(os.environ.get("LONGFORMER_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}; set LONGFORMER_TEST_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def server_of_ranks() -> None:
    """Start the server of processes with all that ranks import, before a preparation starts it with less."""
    from launcher.backends.local.backend import warm_up

    warm_up()
