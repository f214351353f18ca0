"""Bits per character of a run's newest model on held-out text, for `longformer evaluate`."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from data_pipeline.shards.stream_dataset import PreparedData
from launcher.runs.run import Run
from launcher.tasks.base import Judgement, JudgementRequest
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.characters.trained_model import TrainedModel, newest_result
from longformer.errors import LongformerError
from longformer.evaluation.bits import evaluate_bits_per_character


def judge(config: CharacterRun, run: Run, request: JudgementRequest) -> Judgement:
    """Return the bits per character of the newest finished phase, as in the Longformer paper.

    Raises:
        LongformerError: no phase is done, or the run's text is no longer there.
    """
    settings = config.evaluation
    sequence_length = request.sequence_length or settings.sequence_length
    stride = request.stride or settings.stride
    if stride > sequence_length:
        raise LongformerError(f"the stride ({stride}) must not exceed the sequence length ({sequence_length})")
    trained = TrainedModel.load(newest_result(run) / "model")
    tokens = _data_of(run).split(request.split)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"evaluating {len(tokens):,} characters", total=None)
        result = evaluate_bits_per_character(
            trained.model,
            tokens.read(0, len(tokens)),
            sequence_length=sequence_length,
            stride=stride,
            batch_size=request.batch_size or settings.batch_size,
            report_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    values = {
        "split": request.split,
        "bits_per_character": result.bits,
        "scored": result.scored,
        "scored_without_full_context": result.scored_without_full_context,
        "sequence_length": sequence_length,
        "stride": stride,
        "model": str(trained.directory),
    }
    text = (
        f"{result.bits:.4f} bits per character on {request.split}: {result.scored:,} characters, "
        f"{result.scored_without_full_context:,} of them without full context "
        f"(sequences of {sequence_length:,}, the last {stride:,} scored; {trained.directory})"
    )
    return Judgement(text, values)


def _data_of(run: Run) -> PreparedData:
    """Return the text the run was trained on, and no other.

    Raises:
        LongformerError: other data lies there now.
    """
    identity = run.paths.identity()
    data = PreparedData.open(Path(identity.data_directory))
    if data.fingerprint != identity.data_fingerprint:
        raise LongformerError(
            f"{identity.data_directory} holds other data than {run.paths.root} was trained on "
            f"(fingerprint {data.fingerprint[:12]}, expected {identity.data_fingerprint[:12]}); prepare it again"
        )
    return data
