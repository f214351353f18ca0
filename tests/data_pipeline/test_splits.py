from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.sources.characters import JoinedText, TextSurvey, split_ranges
from data_pipeline.sources.corpora import SPLITS

documents = st.lists(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), min_size=1, max_size=8)


@given(documents, st.one_of(st.none(), st.integers(1, 300)))
def test_the_stream_is_the_joined_documents_cut_at_the_limit(parts: list[list[bytes]], limit: int | None) -> None:
    expected = b"\0".join(b"".join(chunks) for chunks in parts)[:limit]
    assert b"".join(JoinedText((iter(chunks) for chunks in parts), limit)) == expected
    survey = TextSurvey.of(JoinedText((iter(chunks) for chunks in parts), limit))
    assert survey.size == len(expected)
    assert survey.symbols == bytes(sorted(set(expected)))
    assert survey.document_ends[-1] == len(expected)


@given(st.lists(st.integers(1, 10_000), min_size=1).filter(lambda sizes: sum(sizes) >= 100))
def test_splits_cover_the_text_without_overlap_and_keep_their_shares(sizes: list[int]) -> None:
    total = sum(sizes)
    ranges = split_ranges(total, list(accumulate(sizes)))
    assert tuple(ranges) == SPLITS
    assert [position for span in ranges.values() for position in (span.start, span.stop)] == [
        0,
        *(2 * [ranges["validation"].start]),
        *(2 * [ranges["test"].start]),
        total,
    ]
    for split, share in zip(SPLITS, (0.90, 0.05, 0.05), strict=True):
        assert abs(len(ranges[split]) - share * total) <= 0.04 * total + 2
        assert len(ranges[split]) > 0


def test_one_hundred_million_bytes_get_the_published_split() -> None:
    ranges = split_ranges(100_000_000, [100_000_000])
    assert [len(span) for span in ranges.values()] == [90_000_000, 5_000_000, 5_000_000]


def test_many_documents_are_held_out_whole() -> None:
    ends = list(accumulate([997] * 200))
    ranges = split_ranges(ends[-1], ends)
    assert ranges["train"].stop in ends
    assert ranges["validation"].stop in ends


def test_few_documents_are_cut_inside() -> None:
    ranges = split_ranges(3_000, [1_000, 2_000, 3_000])
    assert [len(span) for span in ranges.values()] == [2_700, 150, 150]
