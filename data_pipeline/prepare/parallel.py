"""Work on many tasks at once and get the results in the order of the tasks, with few of them in memory."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from data_pipeline.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")


class TaskMap(Protocol):
    """Somewhere to work on tasks: the cores of this machine, or a cluster."""

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yields function(task) for every task, in their order, taking only a few tasks ahead."""
        ...


def in_this_process(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Work on one task after the other, in this process."""
    return map(function, tasks)


class LocalProcesses:
    """The cores of this machine, a process each. Workers end with the process that started them, however it ends."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._workers = workers

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yields the results in order.

        Raises:
            DataError: a worker process was killed.
        """
        # Not forked from this process, whose threads could hold locks; modules are imported once for all workers.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([function.__module__])
        # The first process waits until the server has imported everything. Interrupted while it waits, the server would
        # go on and start it; this one needs nothing that is gone by then.
        first: Any = context.Process(target=_do_nothing)
        first.start()
        first.join()
        others = set(multiprocessing.active_children())
        executor = ProcessPoolExecutor(self._workers, context, initializer=_start_worker)
        waiting: deque[Future[Result]] = deque()
        finished = False
        try:
            for task in tasks:
                waiting.append(executor.submit(function, task))
                # One task more than workers, so that none is idle while the next is read.
                if len(waiting) > self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            finished = True
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, most likely for lack of memory: start again with fewer workers; "
                "what is done is kept"
            ) from None
        finally:
            if not finished:  # nobody waits for what is still worked on
                for worker in set(multiprocessing.active_children()) - others:
                    worker.kill()
            executor.shutdown(wait=True, cancel_futures=True)


def _do_nothing() -> None:
    """Shows that processes can be started."""


def _start_worker() -> None:
    # Control-C goes to the whole group; the parent decides what it means. Whatever else ends a process does so here,
    # though the server that this one comes from may have been started with signals blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Every worker is one thread of the tokenizer: the processes are the parallelism.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
