"""A report as one HTML file that needs no network: pictures lie inside, every text is escaped."""

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from longformer.files import write_atomically

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Figure:
    """A picture."""

    kind: ClassVar[str] = "figure"

    png: bytes
    caption: str
    """What it shows, also for readers who cannot see it."""

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first column is text, the others are numbers."""

    kind: ClassVar[str] = "table"

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Example:
    """Texts that belong together, such as document, reference and prediction."""

    kind: ClassVar[str] = "example"

    texts: tuple[tuple[str, str], ...]
    """(what it is, the text)."""


@dataclass(frozen=True)
class WeightedText:
    """A text whose pieces are shaded by a weight from 0 to 1."""

    kind: ClassVar[str] = "weighted"

    caption: str
    pieces: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class MentionsText:
    """A text whose mentions are coloured by the cluster that they belong to."""

    kind: ClassVar[str] = "mentions"

    caption: str
    pieces: tuple[str | int | None, ...]
    """Texts; the number of a cluster, of which a mention begins here; None: the mention that began last ends here."""


Part = Figure | Table | Example | WeightedText | MentionsText


@dataclass(frozen=True)
class Section:
    """Parts under a heading."""

    heading: str
    text: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What the run was: (name, value)."""
    sections: tuple[Section, ...]


def rendered(page: Page) -> str:
    """Returns the page as HTML."""
    return _TEMPLATES.get_template("page.html").render(page=page)


def write_page(page: Page, path: Path) -> None:
    """Writes the page, atomically."""
    write_atomically(path, rendered(page).encode())
