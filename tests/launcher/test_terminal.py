"""Tables on a terminal of any width: nothing is cut, short names stay whole, and files get whole lines."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from launcher.reporting.terminal import terminal, terminal_table
from launcher.reporting.text import flattened

CELLS = st.text("abc-0123456789,. ", max_size=50).map(str.strip)


def letters(text: str) -> Counter[str]:
    return Counter(letter for letter in text if letter not in " \n─")


@given(rows=st.lists(st.tuples(*[CELLS] * 5), min_size=1, max_size=4), width=st.integers(40, 130))
@settings(max_examples=50, deadline=None)
def test_nothing_is_cut_whatever_the_width(rows: list[tuple[str, ...]], width: int) -> None:
    headings = ("checkpoint", "phase", "tokens", "written by", "size")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        console = Console(width=width)
        with console.capture() as capture:
            console.print(terminal_table(headings, rows, names=2, words=("written by",)))
    shown = capture.get()
    assert letters(shown) == letters("".join(headings) + "".join(cell for row in rows for cell in row))
    assert max(map(len, shown.splitlines())) <= width


def test_names_stay_whole_at_80_columns_and_a_pipe_gets_a_line_for_every_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ("step-00000114", "length-02048", "1,234,567", "2 ranks, ZeRO 2, for any", "191TB", "2026-11-29 13:43")
    headings = ("checkpoint", "phase", "tokens", "written by", "size", "at")
    for columns in ("80", None):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        terminal().print(terminal_table(headings, [row], names=2, words=("written by", "at")))
        shown = capsys.readouterr().out
        assert f"{row[0]}  {row[1]}" in shown
    assert "  ".join(row) in shown


def test_scores_of_very_many_classes_are_counted_not_listed() -> None:
    few, many = ({f"class {number}": {"f1": 0.5, "texts": 3} for number in range(count)} for count in (2, 31))
    told = dict(flattened({"accuracy": 0.5, "confidence_95": {"accuracy": {"low": 0.4, "high": 0.6}}, "few": few,
                           "per_class": many}))  # fmt: skip
    assert told == {
        "accuracy": "0.5000",
        "confidence 95 accuracy": "0.4000 to 0.6000",
        "few class 0 f1": "0.5000",
        "few class 0 texts": "3",
        "few class 1 f1": "0.5000",
        "few class 1 texts": "3",
        "per class": "31 of them, in the JSON",
    }
