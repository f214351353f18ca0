"""Tasks on a Ray cluster: the same promise as data_pipeline.prepare.parallel.LocalProcesses, on many machines."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import Result, Task
from launcher.backends.ray.cluster import join


class RayTasks:
    """The cores of a Ray cluster. A task whose machine is lost is done again on another by Ray itself.

    Every machine must have this package, and see the directories that tasks name: shared storage.

    Args:
        address: of the cluster, as `ray.init` takes it: "auto", "ray://host:port", or "local" for one on this machine.

    Raises:
        DataError: Ray is not installed.
        LongformerError: there is no such cluster.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise DataError("--ray needs Ray: pip install 'longformer-train[ray]'") from None
        self._ray: Any = ray
        # One thread of the tokenizer per task, as Ray counts one core per task.
        join(address, {"TOKENIZERS_PARALLELISM": "false"})

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yields function(task) for every task, in their order, taking only a few tasks ahead.

        Raises:
            DataError: a task failed on the cluster.
        """
        remote = self._ray.remote(function)
        cores = int(self._ray.cluster_resources()["CPU"])
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                waiting.append(remote.remote(task))
                if len(waiting) > cores:
                    yield self._ray.get(waiting.popleft())
            while waiting:
                yield self._ray.get(waiting.popleft())
        except self._ray.exceptions.RayTaskError as error:
            raise DataError(f"a task failed on the Ray cluster: {error.cause}") from None
        finally:
            self._ray.shutdown()
