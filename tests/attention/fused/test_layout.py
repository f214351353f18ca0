"""What the kernels read about padding and global tokens, against a slow description of it."""

import torch
from hypothesis import given, strategies

from longformer.attention.fused import BatchLayout
from longformer.attention.metadata import AttentionMetadata


@given(
    rows=strategies.lists(
        strategies.lists(strategies.sampled_from("pog"), min_size=9, max_size=9), min_size=1, max_size=3
    )
)
def test_layout_says_what_stands_where(rows: list[list[str]]) -> None:
    """p = padding, o = ordinary, g = global."""
    real = torch.tensor([[token != "p" for token in row] for row in rows])
    # A padded position marked as global stays padding.
    chosen = torch.tensor([[token != "o" for token in row] for row in rows])
    layout = AttentionMetadata.of(real, chosen).layout
    if layout is None:
        assert all(row == "o" * 9 for row in map("".join, rows))
        return
    every = [token for row in rows for token in row]
    assert layout.state.tolist() == ["pog".index(token) for token in every]
    special = [place for place, token in enumerate(every) if token != "o"]
    expected = [next((place for place in special if place >= start), len(every)) for start in range(len(every) + 1)]
    assert layout.next_excluded.tolist() == expected
    for index, row in enumerate(rows):
        present = [place for place, token in enumerate(row) if token != "p"]
        if layout.extent is None:
            assert "p" not in every
        else:
            assert layout.extent[index].tolist() == ([present[0], present[-1] + 1] if present else [0, 0])
        globals_ = [place for place, token in enumerate(row) if token == "g"]
        if layout.global_index is None:
            assert globals_ == []
        else:
            assert layout.global_count[index] == len(globals_)
            assert layout.global_index[index, : len(globals_)].tolist() == globals_


def test_batch_of_ordinary_tokens_needs_no_layout() -> None:
    ones = torch.ones(2, 5, dtype=torch.bool)
    assert AttentionMetadata.of(ones, ~ones).layout is None


def test_layout_survives_the_trip_through_an_operator() -> None:
    real = torch.tensor([[True, True, False], [True, True, True]])
    for is_real, is_global in ((real, None), (real, real), (None, real)):
        layout = AttentionMetadata.of(is_real, is_global).layout
        again = BatchLayout.from_tensors(layout.tensors(), layout.max_seqlen)
        assert all(a is b for a, b in zip(vars(layout).values(), vars(again).values(), strict=True))
