"""One rank on a Ray cluster: the function that Ray Train calls in every worker process of a phase."""

import os
import socket
import traceback
from dataclasses import dataclass
from typing import Any

from data_pipeline.errors import DataError
from launcher.backends.local.rank import log_error, print_into
from launcher.backends.ray.heartbeats import Heartbeat, HeartbeatSender
from launcher.training.phases import PhaseTask
from longformer.errors import LongformerError


@dataclass(frozen=True)
class RankOrders:
    """What every rank of a phase is told."""

    task: PhaseTask
    store: Any
    """Handle of the HeartbeatStore."""


def run_rank(settings: dict[str, RankOrders]) -> str:
    """Carries out this worker's part of a phase and returns how it ended, the name of a PhaseOutcome.

    Ray Train has started the process, joined it with the others into one process group, and chosen its GPU.

    Args:
        settings: {"orders": the orders}; Ray Train hands over nothing but a dictionary.

    Raises:
        LongformerError, DataError: training cannot go on; the message is one sentence.
        RuntimeError: anything else went wrong; the log holds the traceback.
    """
    import ray.train.torch

    from launcher.training.worker import train_one_phase
    from longformer.training.distributed import Ranks
    from longformer.training.watchdog import watched

    task, store = settings["orders"].task, settings["orders"].store
    context = ray.train.get_context()
    rank = context.get_world_rank()
    run = task.run
    print_into(run.paths.log_file(task.phase_index, rank))
    first = Heartbeat(
        rank, socket.gethostname(), ray.get_runtime_context().get_node_id(), os.getpid(), step=0, place=""
    )
    ranks = Ranks(rank, context.get_world_size(), ray.train.torch.get_device(), context.get_local_rank())
    try:
        with (
            HeartbeatSender(ray, store, first) as sender,
            watched(run.config.training.stall_seconds, sender.end_stalled) as heartbeat,
        ):
            outcome = train_one_phase(
                task, ranks, stop_requested=sender.stop_requested, heartbeat=heartbeat, watchers=[sender]
            )
    except (LongformerError, DataError) as error:
        log_error(f"error: {error}")
        raise
    except Exception as error:
        log_error(traceback.format_exc())
        raise RuntimeError(f"{type(error).__name__}: {error}") from None  # others may not survive the way to the driver
    return outcome.name
