"""`longformer check`: is this run file right, and is what it needs there."""

import json
from pathlib import Path
from typing import Annotated

import typer

from data_pipeline.errors import DataError
from launcher.config.load import load
from launcher.tasks.registry import data_of
from longformer.errors import LongformerError


def check(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as phases.0.steps=100.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> int:
    """Check a run file and what it needs without running it; every problem is one sentence."""
    try:
        config = load(run_file, overrides or [])
        notes = data_of(config).check()
    except (LongformerError, DataError) as error:
        if not as_json:
            raise
        print(json.dumps({"valid": False, "problems": str(error).splitlines(), "notes": []}, indent=2))
        return 2
    if as_json:
        outcome = {"valid": True, "problems": [], "notes": notes, "fingerprint": config.fingerprint()}
        print(json.dumps(outcome, indent=2))
    else:
        steps = sum(phase.steps for phase in config.phases)
        print(f"{run_file} is valid: run {config.name}, {len(config.phases)} phases, {steps:,} steps")
        for note in notes:
            print(f"note: {note}")
    return 0
