"""The `longformer` command: finds the command asked for, runs it, and words its failures.

Promises that only the module of the command asked for is imported, so that help and version answer
at once, and that an expected failure is one `error: ...` sentence on standard error:
exit code 2 for bad input, 1 when the work failed, 75 for "stopped on request, start me again".
"""

import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from data_pipeline.errors import DataError
from longformer.cpu.openmp import wait_policy
from longformer.errors import LongformerError, WorkFailed


class Command(NamedTuple):
    """Where a command lives: `attribute` of `module` is a function, or a Typer application with commands of its own."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "train": Command("launcher.commands.train", "train", "Train a model phase by phase, as a run file says."),
    "resume": Command("launcher.commands.train", "resume", "Go on with an interrupted run."),
    "submit": Command("launcher.commands.submit", "submit", "Hand a run to Slurm, or to a process of its own."),
    "status": Command("launcher.commands.status", "status", "Say whether a run is waiting, running or finished."),
    "logs": Command("launcher.commands.status", "logs", "Show what a submitted run or a rank has printed."),
    "stop": Command("launcher.commands.status", "stop", "Stop a run after a checkpoint, or at once."),
    "runs": Command("launcher.commands.status", "app", "Tell where two runs part."),
    "checkpoint": Command("launcher.commands.checkpoint", "app", "List, check, convert and compare checkpoints."),
    "new": Command("launcher.commands.new", "new", "Write a run file from the look of the data."),
    "check": Command("launcher.commands.check", "check", "Check a run file without running it."),
    "plan": Command("launcher.commands.plan", "plan", "Show steps, memory, FLOPs and time of a run before it starts."),
    "doctor": Command("launcher.commands.doctor", "doctor", "Examine this machine, or every node of a Slurm job."),
    "data": Command("launcher.commands.data", "app", "Prepare, inspect and verify training text."),
    "evaluate": Command("launcher.commands.evaluate", "evaluate", "Evaluate a run on held-out data."),
    "generate": Command("launcher.commands.generate", "generate", "Continue a text with a trained model."),
    "convert": Command("launcher.commands.convert", "convert", "Make a Longformer or an LED of a short model."),
    "inspect": Command("launcher.commands.inspect", "inspect", "Show what a Longformer or LED checkpoint is."),
    "predict": Command(
        "launcher.commands.predict", "predict", "Run the model of a run, a Longformer or an LED on a text."
    ),
    "register": Command("launcher.commands.register", "register", "Put a trained model into the MLflow registry."),
    "promote": Command("launcher.commands.register", "promote", "Give a registered model an alias, if good enough."),
    "bench": Command("launcher.commands.bench.app", "app", "Measure speed and memory."),
    "ui": Command("launcher.commands.ui", "ui", "Open the MLflow pages of the runs."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command in `arguments` (default: those of the process) and returns its exit code."""
    _speak_utf8()
    os.environ.update(wait_policy())  # before a command imports torch; what it starts inherits it
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        result = application(arguments[0])(args=arguments, prog_name="longformer", standalone_mode=False)
    except WorkFailed as error:
        return _report(str(error), 1)
    except (LongformerError, DataError) as error:
        return _report(str(error), 2)
    except typer.TyperException as error:  # a wrong option or argument
        return _report(error.format_message(), error.exit_code)
    except typer.Abort:
        return _report("stopped", 130)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a missing permission
        return _report(_of_system(error), 1)
    return result if isinstance(result, int) else 0


def application(name: str) -> typer.Typer:
    """Returns the Typer application: the command `name` in full, the others as their one-line summaries."""
    app = typer.Typer(add_completion=False)
    app.callback()(_options)
    for command_name, command in COMMANDS.items():
        target: Any = _not_loaded
        if command_name == name:
            target = getattr(import_module(command.module), command.attribute)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=command_name, help=command.summary)
        else:
            app.command(command_name, short_help=command.summary)(target)
    return app


def _speak_utf8() -> None:
    """Reads and writes UTF-8 through files and pipes, whatever the locale; a terminal has the locale's encoding."""
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors=errors)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"longformer {version('longformer-train')}")
        raise typer.Exit


def _options(
    _: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Train long-document language models, from text to an evaluated model."""


def _not_loaded() -> None:
    """Stands for a command that was not asked for and is only listed."""


def _of_system(error: OSError) -> str:
    """Returns what the operating system has refused, and where."""
    if error.filename is None or error.strerror is None:
        return str(error)
    unwritable = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    remedy = "; choose a place that this user may write to" if unwritable else ""
    return f"{error.filename}: {error.strerror}{remedy}"


def _report(sentence: str, code: int) -> int:
    if sentence:
        Console(stderr=True).print(Text("error: ", style="bold red").append(sentence, style="default"), soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
