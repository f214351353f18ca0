"""The commands of our pages, as a reader would copy them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from tests.conftest import REPOSITORY


class Command(NamedTuple):
    """A line of a fenced block, with what follows it after a backslash."""

    text: str
    comment: str

    @classmethod
    def of(cls, line: str) -> Self:
        text, _, comment = line.partition("  # ")
        return cls(text.strip(), comment.strip())

    @property
    def needs(self) -> str | None:
        """What a command asks for beyond a small machine, as its comment says: `# needs 8 GPUs`."""
        return self.comment.removeprefix("needs ") if self.comment.startswith("needs ") else None

    @property
    def is_server(self) -> bool:
        """Whether it goes on `until Ctrl-C`, as its comment says."""
        return self.comment.endswith("until Ctrl-C")

    @property
    def is_usage(self) -> bool:
        """Whether it shows what may be given, with `[what may be left out]`, `ONE|ANOTHER` or `...`."""
        return re.search(r"\[|\w\|\w|\.\.\.", self.text) is not None

    def calls_of(self, program: str) -> Iterator[list[str]]:
        """Yields the arguments of each call of a program in it."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|<>"):
                while words and "=" in words[0]:
                    words.pop(0)
                if words and words[0] == program:
                    yield words[1:]
                words = []
            else:
                words.append(word)


def pages() -> list[Path]:
    """Returns README.md and all pages below docs."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """Returns the fenced blocks of a page in these languages; an empty name is a block without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [content for language, content in found if language in languages]


def commands(page: Path, *languages: str) -> list[Command]:
    """Returns the lines of these blocks, joined where they end with a backslash."""
    lines = "".join(blocks(page, *languages)).replace("\\\n", " ").splitlines()
    return [Command.of(line) for line in lines if line.strip() and not line.startswith("#")]


def mentions(page: Path, program: str) -> list[list[str]]:
    """Returns the words of every inline `program ...` in the running text of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(rf"`{program} ([^`]+)`", text)
    return [shlex.split(each.replace("\n", " ")) for each in found]
