"""Numbers and tables as a person writes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def clock(seconds: float) -> str:
    """Returns a duration: 0:42, 12:05, 27:07:00, 16.2 days."""
    if seconds >= 2 * 24 * 3600:
        return f"{seconds / (24 * 3600):,.1f} days"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def short(count: float) -> str:
    """Returns a large number with three digits and a unit: 614k, 1.02M, 28.2G."""
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{float(f'{count / size:.3g}'):g}{unit}"
    return f"{count:g}"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown, numbers to the right of a first column of names, without a newline at its end."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_MOST_SHOWN = 30
"""Entries of a dictionary of scores, such as those of classes, that are written out for people."""


def flattened(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the names and values of all numbers and intervals in a dictionary of scores and in those that it holds."""
    for name, value in scores.items():
        words = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping) and set(value) == {"low", "high"}:
            yield words, f"{value['low']:,.4f} to {value['high']:,.4f}"
        elif isinstance(value, Mapping) and len(value) > _MOST_SHOWN:
            yield words, f"{len(value):,} of them, in the JSON"
        elif isinstance(value, Mapping):
            yield from flattened(value, f"{words} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield words, f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
