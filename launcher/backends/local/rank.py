"""One rank, from the fork to the exit code; its machine may run all ranks or, in a cluster, some of them."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from launcher.training.phases import PhaseTask
from launcher.training.signals import signals_noted
from longformer.errors import LongformerError

EXIT_STOPPED = 75
"""Stopped on request after committing a checkpoint: sysexits' "temporary failure, try again"."""
EXIT_EXPECTED = 1
EXIT_UNEXPECTED = 70
EXIT_STALLED = 71
EXIT_ROLLED_BACK = 72
"""A batch was left out; the phase is to be started again from its last checkpoint."""

_CODES = {"COMPLETED": 0, "STOPPED": EXIT_STOPPED, "ROLLED_BACK": EXIT_ROLLED_BACK}


@dataclass(frozen=True)
class RanksHere:
    """Which ranks of a phase one machine runs, and where they meet all others."""

    numbers: range
    rendezvous: str
    """torch.distributed address."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Of the driver now; the server that ranks are forked from has what there was when it started."""


def run_rank(task: PhaseTask, rank: int, here: RanksHere, log: Path, last_words: Connection, lock: Any) -> None:
    """Carries out a rank's part of a phase and ends the process.

    Args:
        task: the phase.
        rank: which of its ranks this is.
        here: the ranks of this machine.
        log: what this process prints is appended there.
        last_words: on failure, one sentence is sent there.
        lock: handle of the run directory's lock; held until this process ends, so that no other run can
            start beside ranks that have lost their driver. None where Slurm sees to that.
    """
    os.setsid()
    os.environ.update(here.environment)
    print_into(log)
    if lock is not None:
        lock.detach()
    driver = os.getppid()
    with signals_noted() as flag:
        try:
            code = _train(task, rank, here, lambda: flag() or os.getppid() != driver, last_words)
        except (LongformerError, DataError) as error:
            code = EXIT_EXPECTED
            last_words.send(str(error))
            log_error(f"error: {error}")
        except Exception as error:
            code = EXIT_UNEXPECTED
            last_words.send(f"{type(error).__name__}: {error}")
            log_error(traceback.format_exc())
        # At once: a failed rank that lingers would let the others fail first, and theirs would be the message.
        os._exit(code)


def _train(
    task: PhaseTask, rank: int, here: RanksHere, stop_requested: Callable[[], bool], last_words: Connection
) -> int:
    import torch

    from launcher.training.worker import train_one_phase, try_one_phase
    from longformer.training.distributed import process_group
    from longformer.training.watchdog import watched

    limit = task.run.config.training.stall_seconds

    def end(place: str) -> None:
        last_words.send(f"rank {rank} is in {place}")
        os._exit(EXIT_STALLED)

    # torch has read the variable already, in the server that this was forked from, before it had the driver's value.
    asked = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, len(os.sched_getaffinity(0)) // len(here.numbers))
    torch.set_num_threads(int(asked) if asked.isdecimal() and int(asked) else share)
    with (
        watched(limit, end) as heartbeat,
        process_group(
            rank=rank,
            local_rank=here.numbers.index(rank),
            world_size=task.ranks,
            rendezvous=here.rendezvous,
        ) as ranks,
    ):
        carry_out = try_one_phase if task.is_trial else train_one_phase
        outcome = carry_out(task, ranks, stop_requested=stop_requested, heartbeat=heartbeat)
    return _CODES[outcome.name]


def print_into(log: Path) -> None:
    """Appends everything this process prints, from C++ too, to its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)


def log_error(text: str) -> None:
    """Prints into the log, if that can still be written."""
    with suppress(OSError):  # the disk may be full
        print(text, file=sys.stderr, flush=True)
