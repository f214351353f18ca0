"""Which rank this process is, where it computes, and how ranks find each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed

_OF_MPI = ("OMPI_COMM_WORLD_", "PMI_", "PMIX_", "MV2_COMM_WORLD_", "MPI_LOCAL")
_OF_TORCHRUN = ("RANK", "LOCAL_", "WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_")
"""How the variables begin by which launchers tell their processes who they are."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of them, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device
    local_rank: int
    """This process among those of its machine."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes what is written once."""
        return self.rank == 0

    @property
    def is_first_of_machine(self) -> bool:
        """Whether this is the rank that does what is done once on every machine."""
        return self.local_rank == 0

    def any_wants(self, wish: bool) -> bool:
        """Returns whether at least one rank has a wish; all ranks must ask at the same time."""
        return self.largest(int(wish)) > 0

    def largest(self, number: int) -> int:
        """Returns the largest of the ranks' numbers; all ranks must ask at the same time."""
        numbers = torch.tensor(number, dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MAX)
        return int(numbers.item())


@contextmanager
def process_group(*, rank: int, local_rank: int, world_size: int, rendezvous: str) -> Iterator[Ranks]:
    """Joins the other ranks, yields this rank's place, and leaves in order.

    Ranks meet over NCCL where there is CUDA, else over gloo. What another launcher above this one (mpirun, torchrun)
    has put into the environment is taken out: DeepSpeed and torch would believe it rather than the arguments.

    Args:
        rank: this process, 0 <= rank < world_size.
        local_rank: this process among those of the same machine; chooses the CUDA device.
        world_size: number of processes.
        rendezvous: torch.distributed address all ranks share, such as file:///path/of/a/new/file.
    """
    on_cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(device)
    others = _OF_MPI if rendezvous.startswith("env://") else _OF_MPI + _OF_TORCHRUN
    for name in [name for name in os.environ if name.startswith(others)]:
        del os.environ[name]
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(local_rank), "WORLD_SIZE": str(world_size)}  # for DeepSpeed
    torch.distributed.init_process_group(
        "nccl" if on_cuda else "gloo", init_method=rendezvous, rank=rank, world_size=world_size
    )
    try:
        yield Ranks(rank, world_size, device, local_rank)
    finally:
        # Without it gloo may abort the process at exit, after everything went well.
        torch.distributed.destroy_process_group()
