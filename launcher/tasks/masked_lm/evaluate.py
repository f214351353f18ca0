"""The paper's table of masked language models (spec 4), for `longformer evaluate`: what copied positions are worth.

Every row is judged on the same hidden tokens: the source at its own length, the long model with random new positions,
with copied ones, and after each phase.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from launcher.runs.run import Run
from launcher.tasks.base import Judgement, JudgementRequest
from launcher.tasks.masked_lm.config import MaskedLMRun
from launcher.tasks.masked_lm_data import held_out_text
from longformer.errors import LongformerError
from longformer.evaluation.bits import MaskedText, evaluate_bits_per_masked_token
from longformer.interop.checkpoint_files import CONFIG_FILE, read_json
from longformer.interop.convert import convert
from longformer.interop.convert_encoder import source_length
from longformer.models import LongformerForMaskedLM
from longformer.models.common.freezing import PRETRAINED_ROWS
from longformer.models.longformer.config import LongformerConfig

RANDOM_SEED = 0


@dataclass(frozen=True)
class Row:
    """One model of the table."""

    model: str
    sequence_length: int
    bits_per_masked_token: float


def judge(config: MaskedLMRun, run: Run, request: JudgementRequest) -> Judgement:
    """Return the table, with as many trained models as there are finished phases.

    Raises:
        LongformerError: the run has not begun, its source is gone, or the request is not for masked language models.
    """
    if request.stride is not None:
        raise LongformerError("--stride is for character models: a masked token is judged with its whole row")
    if not run.paths.start_directory.exists():
        raise LongformerError(f"{run.paths.root} has no model yet; go on with: longformer resume {run.paths.root}")
    text = held_out_text(config, Path(run.paths.identity().data_directory), request.split)
    length = request.sequence_length or config.phases[-1].sequence_length
    batch_size = request.batch_size or config.evaluation.batch_size
    rows = []
    scored = 0
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for name, model, own_length in _models(config, run, length):
            report_progress = partial(_show, bar, bar.add_task(name, total=None))
            result = evaluate_bits_per_masked_token(
                model,
                text,
                sequence_length=own_length,
                batch_size=batch_size * (length // own_length),
                report_progress=report_progress,
            )
            rows.append(Row(name, own_length, result.bits))
            scored = result.scored
    values = {"split": request.split, "scored": scored, "rows": [asdict(row) for row in rows]}
    return Judgement(_table(rows, split=request.split, text=text, scored=scored), values)


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _models(config: MaskedLMRun, run: Run, length: int) -> Iterator[tuple[str, LongformerForMaskedLM, int]]:
    """Yield the name of each model, the model, and the length of the rows it reads."""
    source = config.model.source
    own_length = min(length, source_length(read_json(source / CONFIG_FILE)))
    yield "source at its own length", _as_it_was(source, own_length), own_length
    yield "long, random new positions", _with_random_positions(run.paths.start_directory), length
    yield "long, copied positions", LongformerForMaskedLM.from_pretrained(run.paths.start_directory), length
    steps = 0
    for phase, result in zip(config.phases, run.finished_results(), strict=False):
        steps += phase.steps
        yield f"+ {steps:,} steps ({phase.name})", LongformerForMaskedLM.from_pretrained(result / "model"), length


def _as_it_was(source: Path, own_length: int) -> LongformerForMaskedLM:
    """Return the source as a Longformer whose every token sees every other, which computes what the source does."""
    settings = read_json(source / CONFIG_FILE)
    if settings["model_type"] == LongformerConfig.family:
        return LongformerForMaskedLM.from_pretrained(source)
    with TemporaryDirectory(prefix="longformer-") as folder:
        target = Path(folder, "source")
        convert(source, target, max_length=source_length(settings), window=2 * own_length)
        return LongformerForMaskedLM.from_pretrained(target)


def _with_random_positions(start: Path) -> LongformerForMaskedLM:
    """Return the long model with the rows of new positions as fresh ones are drawn."""
    model = LongformerForMaskedLM.from_pretrained(start)
    new = model.longformer.embeddings.position_embeddings.weight.detach()[model.config.other[PRETRAINED_ROWS] :]
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    new.copy_(model.config.initial_deviation * torch.randn(new.shape, generator=generator))
    return model


def _table(rows: list[Row], *, split: str, text: MaskedText, scored: int) -> Table:
    table = Table(
        title=f"bits per masked token on {split}: {scored:,} of {len(text.tokens):,} tokens, the same for every model",
        title_justify="left",
        box=box.SIMPLE,
    )
    table.add_column("model")
    table.add_column("rows of", justify="right")
    table.add_column("bits", justify="right")
    for row in rows:
        table.add_row(row.model, f"{row.sequence_length:,}", f"{row.bits_per_masked_token:.3f}")
    return table
