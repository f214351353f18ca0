"""Run a function on real ranks: processes forked with everything imported, joined over gloo."""

import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from launcher.backends.local.backend import warm_up

_SECONDS = 120


def in_ranks(
    world_size: int, function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
) -> list[Any]:
    """Call `function(ranks, *arguments)` on every rank and return what each returned, in the order of ranks.

    `environment` is what a launcher above has left in that of every rank.
    """
    warm_up()
    context = get_context("forkserver")
    pipes = [context.Pipe(duplex=False) for _ in range(world_size)]
    with TemporaryDirectory() as meeting_place:
        rendezvous = Path(meeting_place, "ranks").as_uri()
        processes = [
            context.Process(
                target=_be_rank,
                args=(rank, world_size, rendezvous, pipes[rank][1], function, arguments, environment or {}),
            )
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        answers = [receiver.recv() if receiver.poll(_SECONDS) else "no answer" for receiver, _ in pipes]
        for process in processes:
            process.join(10)
            process.kill()
    failures = [answer for answer in answers if isinstance(answer, str)]
    assert not failures, "\n".join(failures)
    return [answer[0] for answer in answers]


def _be_rank(
    rank: int,
    world_size: int,
    rendezvous: str,
    sender: Connection,
    function: Callable[..., Any],
    arguments: Any,
    environment: Mapping[str, str],
) -> None:
    import torch

    from longformer.training.distributed import process_group

    torch.set_num_threads(1)
    os.environ.update(environment)
    try:
        with process_group(rank=rank, local_rank=rank, world_size=world_size, rendezvous=rendezvous) as ranks:
            sender.send((function(ranks, *arguments),))
    except BaseException:
        sender.send(traceback.format_exc())
        os._exit(1)
