"""Waits, in a Slurm job, until all its nodes have joined the job's Ray cluster."""

import sys
import time

from launcher.backends.ray.cluster import connected
from longformer.errors import LongformerError

_SECONDS_TO_START = 180.0
_SECONDS_BETWEEN_LOOKS = 0.5


def main(address: str, nodes: str) -> int:
    """Return 0 once so many nodes belong to the cluster, 1 where that takes too long."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            with connected(address) as cluster:
                while time.monotonic() < deadline:
                    if len(cluster.nodes()) >= int(nodes):
                        return 0
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
        except LongformerError:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
