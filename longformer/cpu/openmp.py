"""How the threads of OpenMP wait for each other. Importing this must not load OpenMP, and so not PyTorch."""

import os

WAIT_POLICY = "OMP_WAIT_POLICY"


def wait_policy() -> dict[str, str]:
    """Returns the environment variable that lets OpenMP's threads sleep while they wait, or the user's choice of it.

    By default threads spin for a while, and beside another busy process they then keep from its core the very thread
    they wait for. OpenMP reads the variable when it is loaded: it must be set before torch is imported.
    """
    return {WAIT_POLICY: os.environ.get(WAIT_POLICY, "PASSIVE")}
