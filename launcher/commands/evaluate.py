"""`longformer evaluate`: bits per character of a run's newest model on held-out text."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from data_pipeline.prepared import PreparedData
from launcher.run_directory import RunDirectory
from launcher.trained_model import TrainedModel, newest_result
from longformer.errors import LongformerError
from longformer.evaluation.bits_per_character import evaluate_bits_per_character


class Split(StrEnum):
    """The parts of a prepared text."""

    train = "train"
    validation = "validation"
    test = "test"


def evaluate(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run.")],
    split: Annotated[Split, typer.Option(help="Which part of the run's text.")] = Split.test,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Characters read at a time; as in the run file unless given.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="How many at the end of each sequence are scored; as in the run file.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Sequences per forward pass; as in the run file unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure bits per character of the newest finished phase on held-out text, as in the Longformer paper."""
    run = RunDirectory(run_directory)
    settings = run.config().evaluation
    sequence_length = sequence_length or settings.sequence_length
    stride = stride or settings.stride
    if stride > sequence_length:
        raise LongformerError(f"the stride ({stride}) must not exceed the sequence length ({sequence_length})")
    trained = TrainedModel.load(newest_result(run) / "model")
    tokens = _data_of(run).split(split.value)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"evaluating {len(tokens):,} characters", total=None)
        result = evaluate_bits_per_character(
            trained.model,
            tokens.read(0, len(tokens)),
            sequence_length=sequence_length,
            stride=stride,
            batch_size=batch_size or settings.batch_size,
            report_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        answer = {
            "split": split.value,
            "bits_per_character": result.bits,
            "scored": result.scored,
            "scored_without_full_context": result.scored_without_full_context,
            "sequence_length": sequence_length,
            "stride": stride,
            "model": str(trained.directory),
        }
        print(json.dumps(answer, indent=2))
        return
    print(
        f"{result.bits:.4f} bits per character on {split.value}: {result.scored:,} characters, "
        f"{result.scored_without_full_context:,} of them without full context "
        f"(sequences of {sequence_length:,}, the last {stride:,} scored; {trained.directory})"
    )


def _data_of(run: RunDirectory) -> PreparedData:
    """Return the text the run was trained on, and no other.

    Raises:
        LongformerError: other data lies there now.
    """
    identity = run.identity()
    data = PreparedData.open(Path(identity.data_directory))
    if data.fingerprint != identity.data_fingerprint:
        raise LongformerError(
            f"{identity.data_directory} holds other data than {run.path} was trained on "
            f"(fingerprint {data.fingerprint[:12]}, expected {identity.data_fingerprint[:12]}); prepare it again"
        )
    return data
