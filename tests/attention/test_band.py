"""The band is one small value: what it says must agree with counting one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longformer.attention import Band

BANDS = st.builds(Band, left=st.integers(0, 30), right=st.integers(0, 30), dilation=st.integers(1, 5))


@given(BANDS, st.integers(0, 60))
def test_pairs_counts_every_visible_pair(band: Band, positions: int) -> None:
    counted = sum(band.sees(query, key) for query in range(positions) for key in range(positions))
    assert band.pairs(positions) == counted
    assert band.forward_flops(positions, head_dim=8) == counted * 8 * 4


@given(BANDS, st.integers(1, 60))
def test_lanes_hold_every_position_once_and_never_see_each_other(band: Band, positions: int) -> None:
    groups = [list(range(positions))[group] for group in band.stride_groups(positions)]
    assert sorted(position for group in groups for position in group) == list(range(positions))
    for group in groups:
        for other in groups:
            if other is not group:
                assert not any(band.sees(query, key) for query in group for key in other)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 80), st.integers(1, 20))
def test_blocks_hold_every_query_once_with_exactly_the_keys_it_reaches(
    left: int, right: int, length: int, size: int
) -> None:
    band = Band(left, right)
    queries = []
    for block in band.blocks(length, size):
        rows = range(block.start, block.stop)
        queries.extend(rows)
        assert len(rows) <= size
        reached = {key for key in range(length) for query in rows if band.sees(query, key)}
        assert reached == set(range(block.low, block.high))
        assert block.first_column == block.low - (block.start - left)
    assert queries == list(range(length))


@pytest.mark.parametrize(("arguments", "name"), [((-1, 0), "left"), ((0, -1), "right"), ((1, 1, 0), "dilation")])
def test_an_impossible_band_is_refused_by_name(arguments: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Band(*arguments)
