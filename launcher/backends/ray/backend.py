"""The Ray backend: the ranks of a phase as workers of Ray Train, over the machines a Ray cluster has just now.

Ray places, starts and watches the workers, each group of them for one start of a phase. Which number of ranks is
right, when a group makes way for a smaller or larger one, and how often ranks may be lost is decided here, so that
a group always begins at the newest checkpoint, as under every other backend.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from data_pipeline.errors import DataError
from launcher.backends.ray.cluster import Node, RayCluster, ranks_that_fit
from launcher.backends.ray.heartbeats import Heartbeat, HeartbeatStore
from launcher.backends.ray.rank import RankOrders, run_rank
from launcher.config.run_config import RunConfig
from launcher.config.sections import RankRange
from launcher.runs.run import Run
from launcher.training.phases import LostRanks, Outcome, PhaseTask, Status
from launcher.training.resource_monitor import ShortageWatch
from launcher.training.signals import StopFlag
from longformer.errors import LongformerError, WorkFailed
from longformer.files import write_json

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_SETTLE = 5.0
"""How long the room in a cluster must stay as it is before fewer ranks start than its machines could hold."""
_SECONDS_TO_GROW = 10.0
"""How long there must be room for more ranks before those that train make way for a larger group."""
_SECONDS_FOR_ROOM = 1800.0
"""How long a run waits until there is room for its lowest number of ranks again."""
_SECONDS_TO_STOP = 300.0
"""How long ranks may take from a request to stop to their checkpoint."""


@dataclass
class RayBackend:
    """Runs phases on a Ray cluster.

    Args:
        cluster: where.
        run: the run, on storage that all machines share.
        ranks: how many ranks, where a phase does not say it.
        stop: the driver's flag; the first request is passed on to the ranks, the second ends them, as does a first one
            that takes too long. A stop file in the run directory counts like a request.
        warn: is told what happens to the cluster.
    """

    cluster: RayCluster
    run: Run
    ranks: RankRange
    stop: StopFlag
    warn: Callable[[str], None]
    _lost_ranks: LostRanks = field(default=LostRanks(), init=False)

    def ranks_now(self, phase_index: int) -> int | None:
        """Returns how many ranks a phase gets now: the highest number that fits; waits for the lowest.

        Returns:
            None when the run was asked to stop meanwhile.

        Raises:
            WorkFailed: there was no room for the lowest number in half an hour, or the head of the cluster is gone.
        """
        return self.cluster.while_it_answers(lambda: self._ranks_now(phase_index))

    def run_phase(self, task: PhaseTask) -> Outcome:
        """Runs one group of ranks to the end of the phase, to a requested stop, to its loss, or until it makes way.

        Raises:
            WorkFailed: the head of the cluster is gone.
        """
        try:
            return self.cluster.while_it_answers(lambda: self._run_phase(task))
        finally:
            self.run.paths.ranks_file.unlink(missing_ok=True)

    def _ranks_now(self, phase_index: int) -> int | None:
        phase = self.run.config.phases[phase_index]
        possible = phase.possible_ranks(self.ranks)
        per_rank = self.cluster.per_rank(phase.resources)
        began = since = time.monotonic()
        before: int | None = None
        while not self._stop_requested():
            nodes = [node for node in self.cluster.nodes() if node.answers() and not node.is_leaving]
            now = largest_that_fits(possible, [node.free for node in nodes], per_rank)
            if now != before:
                before, since = now, time.monotonic()
            hoped = largest_that_fits(possible, [node.total for node in nodes], per_rank)
            if now is not None and (now == hoped or time.monotonic() - since > _SECONDS_TO_SETTLE):
                return now
            if time.monotonic() - began > _SECONDS_FOR_ROOM:
                raise WorkFailed(_no_room(self.cluster, nodes, possible[0], per_rank))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return None

    def _run_phase(self, task: PhaseTask) -> Outcome:
        group = _Group(self.cluster, task)
        reason = self._watch(group, task)
        if group.is_going_on:
            return Outcome(Status.STOPPED)  # the end of the job ends it
        if group.failure is not None:
            return self._outcome_of(group.failure, group, task, announced=reason is not None)
        if group.ended_as == "ROLLED_BACK":
            bad = self.run.paths.latest_skip_reason()
            return Outcome(Status.ROLLED_BACK, f"{bad}; going on from the last checkpoint without that batch")
        if group.ended_as == "COMPLETED":
            return Outcome(Status.COMPLETED)
        return Outcome(Status.STOPPED) if reason is None else Outcome(Status.REGROUPED, reason)

    def _watch(self, group: "_Group", task: PhaseTask) -> str | None:
        """Waits for the end of a group, or until it must not go on; returns why it was asked to make way, if it was."""
        phase = self.run.config.phases[task.phase_index]
        possible = phase.possible_ranks(self.ranks)
        per_rank = self.cluster.per_rank(phase.resources)
        growth = Growth(possible, per_rank, task.ranks)
        shortages = ShortageWatch(self.run.checkpoints_directory(task.phase_index), self.warn)
        reason: str | None = None
        deadline = float("inf")
        while group.is_going_on:
            shortages.look()
            self.stop.requests = max(self.stop.requests, int(shortages.must_stop))
            heartbeats = group.heartbeats()
            write_json(
                self.run.paths.ranks_file,
                {"phase": phase.name, "at": time.time(), "ranks": [asdict(heartbeat) for heartbeat in heartbeats]},
            )
            if self._stop_requested():
                if deadline == float("inf"):
                    deadline = time.monotonic() + _SECONDS_TO_STOP
                    group.ask_to_stop()
                if self.stop.requests > 1 or time.monotonic() > deadline:
                    break
                reason = None
            elif reason is None:
                nodes = self.cluster.nodes()
                reason = leaving(nodes, heartbeats) or growth.reason(nodes, heartbeats)
                if reason is not None:
                    group.ask_to_stop()
            group.wait(_SECONDS_BETWEEN_LOOKS)
        return reason

    def _stop_requested(self) -> bool:
        self.stop.requests = max(self.stop.requests, self.run.paths.stop_requests())
        return self.stop()

    def _outcome_of(self, failure: Exception, group: "_Group", task: PhaseTask, *, announced: bool) -> Outcome:
        failures = getattr(failure, "worker_failures", {})
        for rank, error in failures.items():
            if isinstance(error, LongformerError | DataError):
                log = self.run.paths.log_file(task.phase_index, rank)
                return Outcome(Status.FAILED, f"{error} (rank {rank}; its log is {log})")
        if self._stop_requested():
            return Outcome(Status.STOPPED)
        what = (
            what_was_lost(failures, group.last_heartbeats, [node for node in self.cluster.nodes() if node.answers()])
            or str(failure).splitlines()[-1]
        )
        if announced:
            return Outcome(Status.REGROUPED, f"{what}; going on from the last checkpoint")
        max_failures = self.run.config.cluster.max_failures
        self._lost_ranks = self._lost_ranks.one_more(self.run.checkpoints_directory(task.phase_index))
        if self._lost_ranks.count > max_failures:
            logs = self.run.paths.log_file(0, 0).parent
            return Outcome(
                Status.FAILED, f"{self._lost_ranks.message(what, max_failures=max_failures)}; logs are in {logs}"
            )
        return Outcome(
            Status.REGROUPED,
            f"{what}; going on from the last checkpoint with the machines there are (loss {self._lost_ranks.count} of "
            f"at most {max_failures} without a new checkpoint)",
        )


def largest_that_fits(
    possible: Sequence[int], rooms: Sequence[Mapping[str, float]], per_rank: Mapping[str, float]
) -> int | None:
    """Returns the largest of the possible numbers of ranks for which there is room, None when there is for none."""
    room = ranks_that_fit(rooms, per_rank)
    return max((ranks for ranks in possible if ranks <= room), default=None)


def check_room(cluster: RayCluster, config: RunConfig, ranks: RankRange) -> None:
    """Raises LongformerError where some phase could never start on the machines that the cluster has now."""
    nodes = cluster.nodes()
    for phase in config.phases:
        possible, per_rank = phase.possible_ranks(ranks), cluster.per_rank(phase.resources)
        if largest_that_fits(possible, [node.total for node in nodes], per_rank) is None:
            raise LongformerError(_no_room(cluster, nodes, possible[0], per_rank))


def _no_room(cluster: RayCluster, nodes: Sequence[Node], lowest: int, per_rank: Mapping[str, float]) -> str:
    words = {"CPU": "processor cores", "GPU": "GPUs"}
    there = " and ".join(f"{sum(node.total.get(name, 0) for node in nodes):g} {word}" for name, word in words.items())
    free = ranks_that_fit([node.free for node in nodes], per_rank)
    each = " and ".join(f"{amount:g} {words[name]}" for name, amount in per_rank.items())
    return (
        f"the Ray cluster {cluster.address} has {there} on {len(nodes)} machines, {free} ranks of {each} fit into what "
        f"is free, and at least {lowest} are asked for; start more machines or lower --ranks"
    )


def leaving(nodes: Sequence[Node], heartbeats: Sequence[Heartbeat]) -> str | None:
    """Returns why ranks must make way for the end of their machine, if it was announced."""
    announced = {node.identifier: node.host for node in nodes if node.is_leaving}
    hosts = sorted({announced[heartbeat.node] for heartbeat in heartbeats if heartbeat.node in announced})
    return f"{', '.join(hosts)} will leave the cluster; going on without it from the last checkpoint" if hosts else None


def what_was_lost(
    failures: Mapping[int, Exception], heartbeats: Sequence[Heartbeat], nodes: Sequence[Node]
) -> str | None:
    """Returns which machines or ranks were lost, the cause before what may only be its consequence."""
    alive = {node.identifier for node in nodes}
    gone = sorted({heartbeat.host for heartbeat in heartbeats if heartbeat.node not in alive})
    if gone:
        return f"{', '.join(gone)} was lost"
    stalled = [f"rank {heartbeat.rank} is in {heartbeat.place}" for heartbeat in heartbeats if heartbeat.stalled]
    if stalled:
        return f"no step for training.stall_seconds: {'; '.join(stalled)}"
    hosts = {heartbeat.rank: heartbeat.host for heartbeat in heartbeats}
    died = [rank for rank, error in sorted(failures.items()) if not isinstance(error, RuntimeError)]
    if died:
        return f"rank {died[0]} on {hosts.get(died[0], 'its machine')} died (killed, or out of memory)"
    return next((f"rank {rank}: {error}" for rank, error in sorted(failures.items())), None)


@dataclass
class Growth:
    """Notices that there has been room for more ranks for a while."""

    possible: Sequence[int]
    per_rank: Mapping[str, float]
    ranks: int
    _since: float | None = None

    def reason(self, nodes: Sequence[Node], heartbeats: Sequence[Heartbeat]) -> str | None:
        """Returns why the ranks that gave these heartbeats should make way for more, if they should."""
        if len(heartbeats) < self.ranks:  # not all have started, so what they take is not known
            return None
        taken = [heartbeat.node for heartbeat in heartbeats]
        rooms = [
            {
                name: node.free.get(name, 0.0) + amount * taken.count(node.identifier)
                for name, amount in self.per_rank.items()
            }
            for node in nodes
            if not node.is_leaving
        ]
        most = largest_that_fits(self.possible, rooms, self.per_rank)
        if most is None or most <= self.ranks:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > _SECONDS_TO_GROW:
            return f"there is room for {most} ranks now; going on with them from a new checkpoint"
        return None


class _Group:
    """The ranks of one start of a phase: a run of Ray Train, in a thread of its own because it blocks."""

    def __init__(self, cluster: RayCluster, task: PhaseTask) -> None:
        ray = cluster.ray
        self._ray = ray
        here = ray.get_runtime_context().get_node_id()
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self._store = ray.remote(num_cpus=0, scheduling_strategy=near)(HeartbeatStore).remote()
        per_rank = cluster.per_rank(task.run.config.phases[task.phase_index].resources)
        self._trainer = ray.train.torch.TorchTrainer(
            run_rank,
            train_loop_config={"orders": RankOrders(task, self._store)},
            scaling_config=ray.train.ScalingConfig(
                num_workers=task.ranks, use_gpu="GPU" in per_rank, resources_per_worker=per_rank
            ),
            run_config=ray.train.RunConfig(
                name="ray",
                storage_path=str(task.run.paths.root),
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )
        self.failure: Exception | None = None
        self.ended_as: str | None = None
        self.last_heartbeats: list[Heartbeat] = []
        self._thread = threading.Thread(target=self._run, name="ray train", daemon=True)
        self._thread.start()

    @property
    def is_going_on(self) -> bool:
        """Whether some rank has not ended."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Waits for the end, but not longer than that."""
        self._thread.join(seconds)

    def ask_to_stop(self) -> None:
        """Asks every rank to stop at its next step border, after a checkpoint."""
        self._store.ask_to_stop.remote()

    def heartbeats(self) -> list[Heartbeat]:
        """Returns the newest heartbeat of every rank."""
        self.last_heartbeats = self._ray.get(self._store.heartbeats.remote())
        return self.last_heartbeats

    def _run(self) -> None:
        try:
            self.ended_as = self._trainer.fit().return_value
        except Exception as error:  # Ray has many; each is weighed by the one who started the group
            self.failure = error
