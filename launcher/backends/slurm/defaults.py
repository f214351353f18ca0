"""Processors and memory of a job that asks for none: what the run needs, and its GPUs' share of their node."""

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.backends.slurm.batch_script import JobRequest
from launcher.backends.slurm.commands import NodeKind
from launcher.planning.node_needs import NodeNeeds

_MIB = 2**20
_OF_RAY = 3 * 2**30
"""Ray's own processes and its object store."""


@dataclass(frozen=True)
class JobDefaults:
    """What is asked of Slurm beside what the user asked for."""

    options: tuple[str, ...]
    """Of sbatch, without their dashes."""
    notes: tuple[str, ...]
    """What the user may want to know of them, and of limits that nobody set."""


def job_defaults(request: JobRequest, needs: NodeNeeds, nodes: Sequence[NodeKind]) -> JobDefaults:
    """Returns processors, memory and notes for a request; what the user has set stays.

    Args:
        request: what the user asks for.
        needs: of the run on each node.
        nodes: kinds of nodes of the partition; none where Slurm cannot be asked.
    """
    asked = {option.partition("=")[0] for option in request.options}
    fitting = [node for node in nodes if node.gpus >= request.gpus_per_node]
    options, notes = [], []
    if not asked & {"cpus-per-task", "cpus-per-gpu", "exclusive"}:
        processors = _share([node.processors for node in fitting], needs.processors, request, fitting)
        options.append(f"cpus-per-task={processors}")
        if processors < needs.processors:
            notes.append(
                f"{request.ranks_per_node} ranks of a node want {needs.processors} processors, but the partition's "
                f"nodes have {processors}: they share them"
            )
    if not asked & {"mem", "mem-per-cpu", "mem-per-gpu"}:
        if "exclusive" in asked:
            options.append("mem=0")  # all of it
        elif needs.memory is None:
            notes.append("the job asks for no memory, since the model is not there yet: set it with --sbatch mem=64G")
        else:
            needed = -(-(needs.memory + _OF_RAY * request.ray) // _MIB)
            memory = _share([node.memory // _MIB for node in fitting], needed, request, fitting)
            options.append(f"mem={memory}M")
            if memory < needed:
                notes.append(
                    f"the ranks of a node need about {needed / 1024:.0f} GiB, but the partition's nodes have "
                    f"{memory / 1024:.0f} GiB: take more nodes, or fewer ranks of each"
                )
    if request.time is None and "time" not in asked:
        limits = ", ".join(sorted({node.time_limit for node in nodes})) or "not known here"
        notes.append(f"without --time the partition's own limit holds ({limits})")
    return JobDefaults(tuple(options), tuple(notes))


def _share(of_nodes: list[int], needed: int, request: JobRequest, nodes: Sequence[NodeKind]) -> int:
    """Returns what is needed; with GPUs at least their share of the smallest node, and never more than a node has."""
    if not of_nodes:
        return needed
    shares = [
        amount * request.gpus_per_node // node.gpus if request.gpus_per_node else 0
        for amount, node in zip(of_nodes, nodes, strict=True)
    ]
    return min(max(needed, min(shares)), max(of_nodes))
