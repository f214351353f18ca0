"""Decisions about a run on a Ray cluster: how many ranks, when they make way, what was lost, what is refused."""

import socket
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from example_run import QUICKSTART
from hypothesis import given
from hypothesis import strategies as st

from launcher.backends.ray import backend
from launcher.backends.ray.backend import Growth, largest_that_fits, leaving, what_was_lost
from launcher.backends.ray.cluster import Node, connected, ranks_that_fit
from launcher.backends.ray.heartbeats import Heartbeat
from launcher.cli import main
from launcher.config.load import load
from launcher.config.sections import RankRange
from launcher.training.phases import LostRanks
from longformer.errors import LongformerError

PHASE = load(QUICKSTART).phases[0]
ranges = st.tuples(st.integers(1, 40), st.integers(0, 40)).map(lambda pair: RankRange(pair[0], sum(pair)))
amounts = st.fixed_dictionaries({"CPU": st.integers(1, 4)}, optional={"GPU": st.integers(1, 2)})
rooms = st.lists(st.fixed_dictionaries({"CPU": st.integers(0, 9)}, optional={"GPU": st.integers(0, 4)}), max_size=4)


@given(ranges)
def test_a_range_of_ranks_reads_what_it_writes(ranks: RankRange) -> None:
    assert RankRange.parse(str(ranks)) == ranks


@pytest.mark.parametrize("written", ["", "0", "4-2", "-2", "2-", "two", "1.5", "0-3"])
def test_what_is_no_range_of_ranks_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="range of"):
        RankRange.parse(written)


@given(ranges, st.integers(1, 60), st.one_of(st.none(), st.integers(1, 6)))
def test_possible_ranks_are_all_that_divide_the_batch(asked: RankRange, batch: int, micro_batch: int | None) -> None:
    batch *= micro_batch or 1
    phase = PHASE.model_copy(update={"batch_size": batch, "micro_batch_size": micro_batch})
    expected = tuple(ranks for ranks in range(asked.min, asked.max + 1) if batch % (ranks * (micro_batch or 1)) == 0)
    if expected:
        assert phase.possible_ranks(asked) == expected
    else:
        with pytest.raises(LongformerError, match=r"cannot be divided|can be divided over no number|is not a multiple"):
            phase.possible_ranks(asked)


def test_a_phase_may_ask_for_other_ranks_than_the_run() -> None:
    config = load(QUICKSTART, ["phases.1.resources={ranks: 2-4, gpus_per_rank: 1}", "phases.1.batch_size=8"])
    assert config.phases[0].possible_ranks(RankRange(1, 1)) == (1,)
    assert config.phases[1].possible_ranks(RankRange(1, 1)) == (2, 4)
    assert not config.learning_diff(load(QUICKSTART, ["phases.1.batch_size=8"]))
    with pytest.raises(LongformerError, match=r"phases\[1\]\.resources\.ranks: '4-2' is no range of ranks"):
        load(QUICKSTART, ["phases.1.resources.ranks=4-2"])


@given(rooms, amounts)
def test_as_many_ranks_fit_as_can_be_placed_one_after_the_other(
    there: list[dict[str, int]], per_rank: dict[str, int]
) -> None:
    left = [dict(room) for room in there]

    def place() -> bool:
        for room in left:
            if all(room.get(name, 0) >= amount for name, amount in per_rank.items()):
                room.update({name: room[name] - amount for name, amount in per_rank.items()})
                return True
        return False

    placed = next(number for number in count() if not place())
    assert ranks_that_fit(there, per_rank) == placed
    fitting = largest_that_fits((2, 3, 5), there, per_rank)
    assert fitting == max((ranks for ranks in (2, 3, 5) if ranks <= placed), default=None)


def node(host: str, *, free: float = 0, is_leaving: bool = False) -> Node:
    return Node(host, host, {"CPU": 2.0}, {"CPU": free}, is_leaving)


def heartbeat(rank: int, host: str, *, stalled: bool = False) -> Heartbeat:
    return Heartbeat(rank, host, host, process=1, step=7, place="all_reduce (distributed_c10d.py:1)", stalled=stalled)


def test_ranks_make_way_only_for_the_end_of_their_own_machine() -> None:
    nodes = [node("a"), node("b", is_leaving=True), node("c", is_leaving=True)]
    assert leaving(nodes, [heartbeat(0, "a")]) is None
    assert "b will leave" in str(leaving(nodes, [heartbeat(0, "a"), heartbeat(1, "b")]))


def test_ranks_make_way_for_more_once_there_has_been_room_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(backend.time, "monotonic", lambda: next(clock))
    growth = Growth((1, 2, 4), {"CPU": 1.0}, ranks=2)
    two, room_for_three, room_for_four = (
        [heartbeat(0, "a"), heartbeat(1, "a")],
        [node("a", free=1)],
        [node("a"), node("b", free=2)],
    )
    assert growth.reason(room_for_four, two[:1]) is None  # the second has not said yet where it is
    assert [growth.reason(room_for_three, two) for _ in range(5)] == [None] * 5  # the batch does not divide by three
    assert growth.reason(room_for_four, two) is None
    assert growth.reason(room_for_three, two) is None  # the room is gone, and with it the time it was there
    answers = [growth.reason(room_for_four, two) for _ in range(4)]
    assert answers[0] is None
    assert "room for 4 ranks" in str(answers[-1])
    assert growth.reason([node("a"), node("b", free=2, is_leaving=True)], two) is None


def test_what_was_lost_names_the_cause_before_its_consequences() -> None:
    heartbeats = [heartbeat(0, "a"), heartbeat(1, "b"), heartbeat(2, "b")]
    failures: dict[int, Exception] = {0: RuntimeError("connection reset"), 1: ConnectionError("actor"), 2: OSError("x")}
    assert what_was_lost(failures, heartbeats, [node("a")]) == "b was lost"
    nodes = [node("a"), node("b")]
    assert str(what_was_lost(failures, heartbeats, nodes)).startswith("rank 1 on b died")
    assert "rank 2 is in all_reduce" in str(
        what_was_lost(failures, [*heartbeats[:2], heartbeat(2, "b", stalled=True)], nodes)
    )
    assert what_was_lost({0: RuntimeError("connection reset")}, heartbeats, nodes) == "rank 0: connection reset"


def test_losses_are_counted_from_the_newest_checkpoint(tmp_path: Path) -> None:
    twice = LostRanks().one_more(tmp_path).one_more(tmp_path)
    assert twice.count == 2
    (tmp_path / "step-00000010").mkdir()
    once = twice.one_more(tmp_path)
    assert (once.count, once.one_more(tmp_path).count) == (1, 2)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]  # bound, but nobody listens


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_no_cluster_at_an_address_is_one_sentence_with_a_remedy(
    closed_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    train = ("train", QUICKSTART, "--run-directory", tmp_path / "run", "--backend", "ray", "--address")
    assert f"no Ray cluster at 127.0.0.1:{closed_port} (Connection refused)" in refusal(
        capsys, *train, f"127.0.0.1:{closed_port}"
    )
    assert "is not HOST:PORT" in refusal(capsys, *train, "somewhere")
    assert "no Ray cluster at no-such-host.invalid:6379 (" in refusal(capsys, *train, "no-such-host.invalid:6379")
    assert "longformer submit RUN.yaml --backend ray" in refusal(capsys, *train, "ray://head:10001")
    submit = ("submit", QUICKSTART, "--run-directory", tmp_path / "run", "--backend", "ray")
    assert "--address is missing" in refusal(capsys, *submit)
    assert "no Ray dashboard answers" in refusal(capsys, *submit, "--address", f"http://127.0.0.1:{closed_port}")
    assert not (tmp_path / "run" / "identity.json").exists()


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LongformerError, match=r"pip install 'longformer-train\[ray\]'"), connected("local"):
        pass


def test_a_range_of_ranks_is_for_ray_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    answer = refusal(capsys, "train", QUICKSTART, "--ranks", "2-4", "--run-directory", tmp_path / "run")
    assert "only --backend ray can choose" in answer
