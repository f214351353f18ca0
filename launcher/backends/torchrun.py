"""The torchrun backend: torchrun has started the ranks already, and this process is one of them through all phases.

The first rank is the driver too: it walks through the phases and tells the others which is next. When one is lost,
torchrun starts them all again, and they go on from the last checkpoint.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch.distributed

from data_pipeline.errors import DataError
from launcher.backends.local.rank import EXIT_STALLED, log_error, print_into
from launcher.training.phases import Outcome, PhaseTask, Status
from launcher.training.signals import StopFlag, signals_noted
from longformer.errors import LongformerError, WorkFailed
from longformer.training.distributed import Ranks, process_group
from longformer.training.records import PhaseOutcome


@dataclass
class TorchrunBackend:
    """Runs phases in the processes that torchrun has started.

    Args:
        ranks: the first rank among all.
        stop: the driver's flag; a stop file in the run directory counts like a request.
    """

    ranks: Ranks
    stop: StopFlag

    def run_phase(self, task: PhaseTask) -> Outcome:
        """Runs one phase on all ranks.

        Raises:
            WorkFailed: this rank cannot go on; the others are ended by torchrun.
        """
        run = task.run
        _broadcast_task(task, self.ranks)
        try:
            ended = _carry_out(task, self.ranks, lambda: self.stop() or run.paths.stop_requests() > 0)
        except (LongformerError, DataError) as error:
            raise WorkFailed(str(error)) from error
        if ended is PhaseOutcome.ROLLED_BACK:
            return Outcome(Status.ROLLED_BACK, f"{run.paths.latest_skip_reason()}; going on without that batch")
        return Outcome(Status.COMPLETED if ended is PhaseOutcome.COMPLETED else Status.STOPPED)


def rank_and_ranks() -> tuple[int, int]:
    """Returns which of how many ranks torchrun has started this process as.

    Raises:
        LongformerError: torchrun has not started this process.
    """
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except KeyError:
        raise LongformerError(
            "--backend torchrun is for processes that torchrun starts: "
            "torchrun --nproc-per-node 2 -m launcher.cli train RUN.yaml --backend torchrun"
        ) from None


@contextmanager
def first_rank(stop: StopFlag) -> Iterator[TorchrunBackend]:
    """Leads the other ranks while the block runs, and lets them go after it."""
    with _all_ranks() as ranks:
        yield TorchrunBackend(ranks, stop)
        # Not after a failure: torchrun ends ranks that may be waiting for this one elsewhere.
        _broadcast_task(None, ranks)


def follow() -> None:
    """Acts as any rank but the first: carries out what the first one says, to the end of the run."""
    with signals_noted(max_requests=1) as stop, _all_ranks() as ranks:
        while task := _broadcast_task(None, ranks):
            print_into(task.run.paths.log_file(task.phase_index, ranks.rank))
            try:
                _carry_out(task, ranks, stop)
            except (LongformerError, DataError) as error:
                log_error(f"error: {error}")
                raise WorkFailed(f"{error} (rank {ranks.rank})") from error


def _all_ranks() -> AbstractContextManager[Ranks]:
    rank, ranks = rank_and_ranks()
    return process_group(rank=rank, local_rank=int(os.environ["LOCAL_RANK"]), world_size=ranks, rendezvous="env://")


def _broadcast_task(task: PhaseTask | None, ranks: Ranks) -> PhaseTask | None:
    """Returns on every rank the task that the first one gives here, None for the end of the run."""
    words = [task]
    torch.distributed.broadcast_object_list(words, src=0, device=ranks.device)
    return words[0]


def _carry_out(task: PhaseTask, ranks: Ranks, stop_requested: Callable[[], bool]) -> PhaseOutcome:
    # DeepSpeed takes seconds to import; other backends must not wait for it here.
    from launcher.training.worker import train_one_phase
    from longformer.training.watchdog import watched

    def end(place: str) -> None:
        log_error(f"rank {ranks.rank} is in {place}")
        os._exit(EXIT_STALLED)

    with watched(task.run.config.training.stall_seconds, end) as heartbeat:
        outcome = train_one_phase(task, ranks, stop_requested=stop_requested, heartbeat=heartbeat)
    gc.collect()  # what the phase has held, before the next begins in this process
    return outcome
