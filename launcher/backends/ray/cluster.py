"""A Ray cluster as the launcher sees it: connected to, counted, and let go of.

Promises that whatever keeps a cluster from being used is one LongformerError with a remedy.
"""

import atexit
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from launcher.backends.ray import compat
from launcher.config.sections import ResourcesSection
from longformer.cpu.openmp import wait_policy
from longformer.errors import LongformerError, WorkFailed

Result = TypeVar("Result")

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_WITHOUT_HEAD = 15.0
_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_LEAVE = 20.0
_SECONDS_TO_START = 180.0
_ENVIRONMENT = {
    # The driver's code, wherever a worker was started.
    "PYTHONPATH": str(Path(__file__).parents[3]),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # The driver looks for leaving nodes itself, and asks for a checkpoint.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # How long ranks that wait for a lost one may take to leave their process group before they are ended.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
}


@dataclass(frozen=True)
class Node:
    """A living machine of the cluster."""

    identifier: str
    host: str
    total: Mapping[str, float]
    """How much it has of each resource: CPU, GPU."""
    free: Mapping[str, float]
    """How much of that nobody uses."""
    is_leaving: bool = False
    """Whether it has been announced that it will go away."""
    door: tuple[str, int] | None = None
    """Address and port of Ray's daemon there."""

    def answers(self) -> bool:
        """Returns whether somebody listens at the door; the head notices a lost machine only after half a minute."""
        return self.door is not None and _somebody_listens(self.door)


def ranks_that_fit(rooms: Sequence[Mapping[str, float]], per_rank: Mapping[str, float]) -> int:
    """Returns how many ranks fit into the rooms of single nodes, each rank whole into one of them."""
    return sum(min(int(room.get(name, 0.0) / amount) for name, amount in per_rank.items()) for room in rooms)


class HeadLost(WorkFailed):
    """The machine that holds the cluster together is gone, and with it all that runs there."""


@dataclass(frozen=True)
class RayCluster:
    """A cluster this process is connected to."""

    ray: Any
    address: str

    def answers(self) -> bool:
        """Returns whether its head is there; where it is not, Ray's own calls wait for long or for ever."""
        host, _, port = self.ray.get_runtime_context().gcs_address.rpartition(":")
        return _somebody_listens((host.strip("[]"), int(port)))

    def while_it_answers(self, work: Callable[[], Result]) -> Result:
        """Returns what a function returns that asks the cluster for something; of a head that is gone, do not wait.

        Raises:
            What the function raised; HeadLost where the head does not answer any more.
        """
        # Aside, because in Ray's own calls nothing would come back.
        future: Future[Result] = Future()
        threading.Thread(target=_settle, args=(future, work), daemon=True).start()
        last_seen = time.monotonic()
        while not future.done() and time.monotonic() - last_seen < _SECONDS_WITHOUT_HEAD:
            wait([future], _SECONDS_BETWEEN_LOOKS)
            if self.answers():
                last_seen = time.monotonic()
        if not future.done() or (future.exception() is not None and not self.answers()):
            raise HeadLost(
                f"the head of the Ray cluster {self.address} does not answer any more; start the cluster again, and "
                "the same command goes on from the last checkpoint"
            )
        return future.result()

    def nodes(self) -> list[Node]:
        """Returns the machines that are alive."""
        free, leaving = compat.free_resources(self.ray), compat.leaving_nodes(self.ray)
        return [
            Node(
                node["NodeID"],
                node["NodeManagerHostname"],
                node["Resources"],
                free.get(node["NodeID"], {}),
                node["NodeID"] in leaving,
                (node["NodeManagerAddress"], node["NodeManagerPort"]),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]

    def per_rank(self, asked: ResourcesSection) -> dict[str, float]:
        """Returns how much of each resource a rank takes."""
        gpus = asked.gpus_per_rank
        if gpus is None:
            gpus = int(any(node.total.get("GPU") for node in self.nodes()))
        return {"CPU": float(asked.processors_per_rank)} | ({"GPU": float(gpus)} if gpus else {})

    def call(self, function: Callable[..., Result], **arguments: Any) -> Result:
        """Returns what a function returns that works on one core somewhere in the cluster.

        Raises:
            What the function raised; LongformerError where its machine was lost.
        """
        try:
            return self.ray.get(self.ray.remote(function).remote(**arguments))
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            raise LongformerError(f"work on the Ray cluster was lost: {_first_line(error)}; start again") from None


@contextmanager
def connected(address: str | None) -> Iterator[RayCluster]:
    """Makes this process the driver of a job on a cluster while the block runs; all that it started there ends with it.

    Args:
        address: HOST:PORT of the head; "local" for a cluster of this machine alone, made now and gone afterwards; None
            for the one that RAY_ADDRESS names or that runs on this machine.

    Raises:
        LongformerError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
        import ray.train.torch
        import ray.util.scheduling_strategies
    except ImportError:
        raise LongformerError("--backend ray needs Ray: pip install 'longformer-train[ray]'") from None
    compat.silence_lost_machines(ray)
    named = address or os.environ.get("RAY_ADDRESS") or "auto"
    if named.startswith("ray://"):
        raise LongformerError(
            f"{named} is the door for clients outside the cluster; work on one of its machines with --address "
            "HOST:6379, or hand the run over: `longformer submit RUN.yaml --backend ray --address http://HOST:8265`"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as short_path:  # sockets need one
        options = {"include_dashboard": False, **compat.own_directory(short_path)} if named == "local" else {}
        # What workers find in their environment is of their machine, not of this process.
        join(named, _ENVIRONMENT | wait_policy(), **options)
        cluster = RayCluster(ray, named)
        try:
            yield cluster
        except HeadLost:
            # Ray would tell the head of the end of this process and wait for it, or crash.
            atexit.register(_end_at_once)
            raise
        finally:
            if cluster.answers():
                leaving = threading.Thread(target=ray.shutdown, daemon=True)
                leaving.start()
                leaving.join(_SECONDS_TO_LEAVE)


def _end_at_once() -> None:
    sys.stdout.flush()
    os._exit(1)


def _settle(future: "Future[Result]", work: Callable[[], Result]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # for the thread that waits
        future.set_exception(error)


def _somebody_listens(door: tuple[str, int]) -> bool:
    try:
        socket.create_connection(door, _SECONDS_TO_CONNECT).close()
    except OSError:
        return False
    return True


def join(address: str, environment: Mapping[str, str], **options: Any) -> None:
    """Connects this process to a cluster.

    Args:
        address: HOST:PORT or ray://HOST:PORT of the head, "auto" for the cluster of this machine, or "local".
        environment: variables of what is done there.
        options: more for ray.init.

    Raises:
        LongformerError: there is no such cluster, or it is no address.
    """
    import ray

    try:
        if address != "local":
            _check_reachable(address)
        ray.init(
            address=address,
            runtime_env={"env_vars": dict(environment)},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise LongformerError(_no_cluster(address, reason)) from None


def _check_reachable(address: str) -> None:
    """Connects to where a cluster should be; Ray itself would try for long."""
    # A cluster that died leaves its address behind on the machine.
    found = compat.address_on_this_machine() if address == "auto" else address
    host, _, port = found.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise LongformerError(f"{address} is not HOST:PORT, such as 10.0.0.1:6379")
    socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_CONNECT).close()


def _no_cluster(address: str, reason: str) -> str:
    where = "on this machine" if address == "auto" else f"at {address}"
    return (
        f"there is no Ray cluster {where} ({reason}); start one with `ray start --head`, name another as HOST:PORT, or "
        "say `local` for a cluster of this machine alone"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def wait_for_nodes(address: str, nodes: int) -> bool:
    """Waits until the Ray cluster of a Slurm job has its nodes; returns False where that takes too long."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            with connected(address) as cluster:
                while time.monotonic() < deadline:
                    if len(cluster.nodes()) >= nodes:
                        return True
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
        except LongformerError:  # its head is not up yet
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False


if __name__ == "__main__":  # as slurm/ray.sh calls it: ADDRESS NODES
    sys.exit(not wait_for_nodes(sys.argv[1], int(sys.argv[2])))
