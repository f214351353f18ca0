from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.sampling.shuffle import ShuffledExamples
from data_pipeline.shards.prepared import PreparedData, Split
from data_pipeline.sources.corpora import TEXT


def split_with(documents: PreparedData, open_shards: int) -> Split:
    return documents.split("train", open_shards=open_shards)


@pytest.mark.parametrize("open_shards", [1, 3, 100])
def test_every_epoch_holds_every_document_once(open_shards: int, documents_once: PreparedData) -> None:
    line = ShuffledExamples(split_with(documents_once, open_shards), seed=1)
    orders = []
    for epoch in range(3):
        pieces = line.pieces(epoch * line.length, (epoch + 1) * line.length)
        orders.append([(piece.shard, piece.example) for piece in pieces])
        assert max(Counter(orders[-1]).values()) == 1
        assert len(pieces) == sum(shard.examples for shard in line.split.shards)
    assert orders[0] != orders[1] != orders[2]


@settings(max_examples=50)
@given(start=st.integers(0, 300_000), count=st.integers(0, 5_000), open_shards=st.sampled_from([1, 2, 4, 50]))
def test_any_stretch_is_cut_from_one_line_that_holds_every_token_once_an_epoch(
    start: int, count: int, open_shards: int, documents_once: PreparedData
) -> None:
    line = ShuffledExamples(split_with(documents_once, open_shards), seed=2, text=TEXT, gap=1)
    slow = [
        (piece.shard, piece.example, place)
        for epoch in range(start // line.length, (start + count) // line.length + 1)
        for piece in line.pieces(epoch * line.length, (epoch + 1) * line.length)
        for place in range(piece.start, piece.stop)
    ]
    assert max(Counter(slow).values()) <= (start + count) // line.length - start // line.length + 1
    first = start // line.length * line.length
    found = [
        (piece.shard, piece.example, place)
        for piece in line.pieces(start, start + count)
        for place in range(piece.start, piece.stop)
    ]
    assert found == slow[start - first : start - first + count]


def test_documents_of_a_shard_stay_within_one_group_and_groups_change_every_epoch(documents_once: PreparedData) -> None:
    line = ShuffledExamples(split_with(documents_once, 3), seed=3)
    groups = set()
    for epoch in range(2):
        shards = [piece.shard for piece in line.pieces(epoch * line.length, (epoch + 1) * line.length)]
        distinct = list(dict.fromkeys(shards))
        for at in range(0, len(distinct), 3):
            group = frozenset(distinct[at : at + 3])
            places = [place for place, shard in enumerate(shards) if shard in group]
            assert places == list(range(places[0], places[-1] + 1))
            groups.add(group)
    assert len(groups) > -(-len(line.split.shards) // 3)


def test_open_files_are_bounded_by_what_the_user_sets(documents_once: PreparedData) -> None:
    split = split_with(documents_once, 2)
    assert len(split.shards) >= 8
    line = ShuffledExamples(split, seed=4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for position in range(2 * line.length):
        (piece,) = line.pieces(position, position + 1)
        assert split.read_tokens(piece.shard, piece.example, TEXT, 0, 1) is not None
        assert len(list(Path("/proc/self/fd").iterdir())) - before <= 2


def test_the_order_never_changes_between_versions(documents_once: PreparedData) -> None:
    # A checkpoint's position only means something as long as these stay.
    line = ShuffledExamples(split_with(documents_once, 3), seed=0)
    assert [(piece.shard, piece.example) for piece in line.pieces(0, 3)] == [(3, 24), (7, 18), (8, 23)]
