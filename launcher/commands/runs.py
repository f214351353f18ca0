"""`longformer runs`: look at several runs together."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from launcher.run_difference import compare_runs
from launcher.run_directory import RunDirectory

app = typer.Typer(no_args_is_help=True)


@app.callback()
def runs() -> None:
    """Look at several runs together."""


@app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run.")],
    second: Annotated[Path, typer.Argument(metavar="OTHER_RUN_DIR", help="Another run.")],
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest relative difference of losses that count as equal; 0 = bit for bit.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Tell at which step two runs part, and what was asked of them differently; exit code 1 where they part."""
    found = compare_runs(RunDirectory(first), RunDirectory(second), tolerance=tolerance)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        for line in found.settings:
            print(line)
        if found.parting is None:
            print(f"the {found.steps_compared:,} steps that both have agree")
        else:
            at = found.parting
            print(
                f"they part at step {at.global_step:,} (phase {at.phase}, step {at.step:,}): "
                f"loss {at.first_loss:.9g} and {at.second_loss:.9g}"
            )
        print(f"largest relative difference of losses: {found.largest_relative_difference:.3g}")
    return 0 if found.parting is None else 1
