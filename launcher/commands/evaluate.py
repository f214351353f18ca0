"""`longformer evaluate`: how good a run's model is on held-out data, in the measures of its task."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launcher.reporting.terminal import terminal
from launcher.runs.run import Run
from launcher.tasks.base import EvaluationRequest
from launcher.tasks.registry import task_of_run


class Split(StrEnum):
    """The parts of prepared data."""

    train = "train"
    validation = "validation"
    test = "test"


def evaluate(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run.")],
    split: Annotated[Split, typer.Option(help="Which part of the run's data.")] = Split.test,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens read at a time; as in the run file unless given.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens at the end of each sequence that are scored; as in the run file."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Sequences per forward pass; as in the run file unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate a run on held-out data, in the measures of its task."""
    run = Run.open(run_directory)
    request = EvaluationRequest(
        split=split.value, sequence_length=sequence_length, stride=stride, batch_size=batch_size
    )
    evaluated = task_of_run(run).evaluate_run(run, request)
    if as_json:
        print(json.dumps(evaluated.values, indent=2))
    else:
        terminal().print(evaluated.text)
