"""Every `longformer ...` in our pages is a command that there is, with options that it has."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from launcher.cli import COMMANDS, application
from tests.conftest import REPOSITORY
from tests.docs_commands import commands, mentions, pages


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Returns the command that words name, and the words after its name."""
    name, *rest = words
    if name.startswith("-"):
        return typer.main.get_command(application("")), words
    assert name in COMMANDS, f"there is no command {name}"
    found: Any = typer.main.get_command(application(name)).commands[name]
    while hasattr(found, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        assert name in found.commands, f"there is no command {name}"
        found = found.commands[name]
    return found, rest


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_commands_of_a_page_parse(page: Path) -> None:
    named = mentions(page, "longformer")
    # Blocks without a language also show what is printed.
    for line in commands(page, "bash") + [each for each in commands(page, "") if each.text.startswith("longformer ")]:
        if line.is_usage:
            named.append(re.findall(r"[\w.-]+", line.text.removeprefix("longformer ")))
            continue
        for words in line.calls_of("longformer"):
            command, arguments = command_of(words)
            try:
                command.make_context(None, arguments)
            except typer.TyperException as error:
                pytest.fail(f"{line.text}: {error.format_message()}")
    for words in named:
        command, arguments = command_of(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
            "--help"
        }
        assert {word for word in arguments if word.startswith("--")} <= known, words


def test_the_pages_are_read() -> None:
    assert len(pages()) > 20
    assert sum(line.text.startswith("longformer ") for page in pages() for line in commands(page, "", "bash")) > 60
    assert len(commands(REPOSITORY / "README.md", "bash")) > 30
