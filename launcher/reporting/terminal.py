"""Tables on a terminal: nothing in them is ever cut, and whatever identifies a row stays whole as long as it can."""

import os
from collections.abc import Collection, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WHOLE_NAME = 32
"""Names up to so many characters stay on one line, where that leaves room for the rest."""
_OF_NAMES = 0.6
"""Share of a terminal's width that the names of a table may take from the rest."""
_WORDS = 30
"""Of a column of words that need more, so many stay on one line as long as names fit."""
_IN_A_FILE = 10_000
"""Columns of an output that is no terminal: programs read lines."""


def terminal() -> Console:
    """Returns the console that results are printed on; into a file or a pipe no line is broken."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_IN_A_FILE)


def terminal_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    title: str | None = None,
    names: int = 1,
    words: Collection[str] = (),
    dim: Collection[str] = (),
) -> Table:
    """Returns a table whose cells go on in further lines where the terminal is narrow: long names first, then the rest.

    Args:
        headings: of the columns; empty ones where there are none.
        rows: their cells.
        title: of the table.
        names: so many columns, the first ones, tell the rows apart.
        words: headings of further columns that hold words and not numbers, which stand to the right.
        dim: headings of columns that matter less.
    """
    widths = [
        max(cell_len(line) for cell in (heading, *(row[index] for row in rows)) for line in str(cell).split("\n"))
        for index, heading in enumerate(headings)
    ]
    shown = [
        min(width, _WORDS) if index >= names and headings[index] in words else width
        for index, width in enumerate(widths)
    ]
    whole = min(_WHOLE_NAME, int(_OF_NAMES * terminal().width) // names)
    missing = sum(shown) + 2 * len(shown) + 1 - terminal().width
    for index in sorted(range(names), key=lambda index: -widths[index]):
        given = min(max(missing, 0), max(widths[index] - whole, 0))
        widths[index] -= given
        missing -= given
    # A fixed width holds where the other columns are made narrower.
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), show_header=any(headings))
    for index, heading in enumerate(headings):
        is_name = index < names
        table.add_column(
            heading,
            justify="left" if is_name or heading in words else "right",
            width=widths[index] if is_name else None,
            style="dim" if heading in dim else "",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    return table
