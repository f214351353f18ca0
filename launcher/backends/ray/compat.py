"""Every use of a part of Ray that Ray does not promise to keep, each with the versions it was seen in.

Ray may rename any of them in any release: whoever raises the upper limit of `ray` in pyproject.toml looks here first.
"""

from collections.abc import Mapping
from typing import Any


def silence_lost_machines(ray: Any) -> None:
    """Keeps Ray from printing twenty lines of its daemon's log for every lost machine; no setting does.

    `ray._private.worker.print_to_stdstream`: seen in Ray 2.60.
    """
    ray._private.worker.print_to_stdstream = _print_nothing


def free_resources(ray: Any) -> Mapping[str, Mapping[str, float]]:
    """Returns how much of each resource nobody uses, by node ID; the public call only knows the sum over all nodes.

    `ray._private.state.state.available_resources_per_node`: seen in Ray 2.60.
    """
    free: Mapping[str, Mapping[str, float]] = ray._private.state.state.available_resources_per_node()
    return free


def leaving_nodes(ray: Any) -> frozenset[str]:
    """Returns the IDs of the nodes whose end has been announced.

    `ray._private.state.state.get_draining_nodes`: seen in Ray 2.60.
    """
    return frozenset(ray._private.state.state.get_draining_nodes())


def address_on_this_machine() -> str:
    """Returns HOST:PORT of the cluster that RAY_ADDRESS names, else of the one this machine belongs or belonged to.

    `ray._private.services.get_ray_address_from_environment`: seen in Ray 2.60.

    Raises:
        ConnectionError: there is none.
    """
    from ray._private.services import get_ray_address_from_environment

    return str(get_ray_address_from_environment("auto", None))


def own_directory(path: str) -> dict[str, str]:
    """Returns the option of `ray.init` that lets a cluster of this process keep its sockets and logs in a directory.

    `ray.init(_temp_dir=)`: seen in Ray 2.60.
    """
    return {"_temp_dir": path}


def _print_nothing(data: Any, ignore_prefix: bool) -> None:
    """Takes the place of `print_to_stdstream`."""
