"""`longformer bench`: speed and memory of our parts beside their peers, as tables and as JSON."""

import typer

from launcher.commands.bench.attention import attention
from launcher.commands.bench.data import data, prepare
from launcher.commands.bench.generation import generate
from launcher.commands.bench.step import step

app = typer.Typer(no_args_is_help=True)
app.command("attention")(attention)
app.command("step")(step)
app.command("generate")(generate)
app.command("data")(data)
app.command("prepare")(prepare)


@app.callback()
def bench() -> None:
    """Measure speed and memory."""
