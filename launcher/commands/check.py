"""`longformer check`: is this run file right, and is what it needs there."""

import json
from pathlib import Path
from typing import Annotated

import typer

from data_pipeline.errors import DataError
from launcher.config.load import load
from launcher.config.run_config import RunConfig
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
        data = data_of(config)
        notes = data.check()
        if data.is_prepared:
            config = data.in_steps()
    except (LongformerError, DataError) as error:
        if not as_json:
            raise
        print(json.dumps({"valid": False, "problems": str(error).splitlines(), "notes": []}, indent=2))
        return 2
    if as_json:
        outcome = {"valid": True, "problems": [], "notes": notes, "fingerprint": config.fingerprint()}
        print(json.dumps(outcome, indent=2))
    else:
        print(f"{run_file} is valid: run {config.name}, {len(config.phases)} phases, {_length(config)}")
        for note in notes:
            print(f"note: {note}")
    return 0


def _length(config: RunConfig) -> str:
    """Returns in words how long the phases are; in epochs as far as the data that would tell is not prepared."""
    epochs = [f"{phase.epochs:g} epochs" for phase in config.phases if phase.epochs is not None]
    steps = sum(phase.steps or 0 for phase in config.phases)
    return " and ".join([*([f"{steps:,} steps"] if steps else []), *epochs])
