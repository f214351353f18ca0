"""The task `masked_lm`: a short encoder is made long and goes on learning to predict hidden tokens (semantics.md 4)."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from torch import Tensor, nn

from launcher.reporting.terminal import terminal_table
from launcher.runs.run import Run
from launcher.tasks.base import EvaluatedRun, Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.masked_lm.config import PUBLISHED, MaskedLMRun
from launcher.tasks.masked_lm.data import MaskedLMData
from launcher.tasks.pretrained import PretrainedTask
from launcher.tracking.registry.open_model import model_folder, open_model
from longformer.errors import LongformerError
from longformer.evaluation.bits import MaskedText, evaluate_bits_per_masked_token
from longformer.interop.checkpoint_files import read_tensors, write_folder
from longformer.interop.conversion import copy_to_global
from longformer.interop.convert import convert, copy_files
from longformer.interop.model_folder import CONFIG_FILE, read_config
from longformer.interop.sources import source_length
from longformer.models import LongformerForMaskedLM
from longformer.models.common.freezing import FREEZE_PRETRAINED, PRETRAINED_ROWS, freeze_pretrained
from longformer.models.longformer.config import LongformerConfig
from longformer.training.objectives import Lengths

_RANDOM_SEED = 0


@dataclass(frozen=True)
class ComparedModel:
    """One line of the paper's table."""

    model: str
    sequence_length: int
    bits_per_masked_token: float


@dataclass(frozen=True)
class MaskedLMTask(PretrainedTask[MaskedLMRun, MaskedLMData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LongformerForMaskedLM
    global_tokens: ClassVar[int] = 0

    @property
    def published_settings(self) -> dict[str, Any] | None:
        published = self.config.model.published
        return None if published is None else PUBLISHED[published]

    @property
    def conversion(self) -> dict[str, Any]:
        return {"freeze_pretrained": self.config.model.freeze_pretrained}

    def build_model(self, index: int, origin: Path | None) -> LongformerForMaskedLM:
        model: LongformerForMaskedLM = super().build_model(index, origin)
        return self._frozen(model, origin)

    def blank_model(self, index: int, origin: Path | None) -> LongformerForMaskedLM:
        return self._frozen(super().blank_model(index, origin), origin)

    def _frozen(self, model: LongformerForMaskedLM, origin: Path | None) -> LongformerForMaskedLM:
        """Freezes what is not to be learned, in place."""
        if self.config.model.freeze_pretrained:
            freeze_pretrained(model, self._pretrained_rows(origin))
        return model

    def check_start(self, model: Path) -> None:
        super().check_start(model)
        if self.config.model.freeze_pretrained and PRETRAINED_ROWS not in read_config(model):
            raise LongformerError(
                f"init: {self.config.init} has no {PRETRAINED_ROWS} in {CONFIG_FILE}, which model.freeze_pretrained "
                "needs"
            )

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        length = request.sequence_length or self.config.phases[index].sequence_length
        score = evaluate_bits_per_masked_token(
            model,
            self._held_out_text(request.split),
            sequence_length=length,
            batch_size=request.batch_size or self.config.evaluation.batch_size,
            rank=request.rank,
            world_size=request.world_size,
            report_progress=request.report_progress,
        )
        return Evaluation({"bits_per_masked_token": score.bits, "scored": score.scored, "sequence_length": length})

    def export(self, model: Path, target: Path) -> None:
        """Writes the model with its global projections copied from the trained local ones.

        Pretraining has no global token and teaches those projections nothing (semantics.md 2.1).
        """
        tensors = {name: tensor for name, tensor in read_tensors(model).items() if "_global." not in name}
        copy_to_global(tensors)
        settings = read_config(model)
        for note in (FREEZE_PRETRAINED, PRETRAINED_ROWS):
            settings.pop(note, None)
        copy_files(model, target)
        write_folder(target, settings, tensors)

    def predictions(self, lengths: Lengths) -> float:
        return self.config.data.masked * lengths.read

    def report(self, run: Run) -> TaskReport:
        from launcher.tasks.masked_lm.report import report_of  # brings matplotlib, which no rank needs

        return report_of(self.config, self.data, run)

    def evaluate_run(self, run: Run, request: EvaluationRequest) -> EvaluatedRun:
        """Returns the paper's table (semantics.md 4), with as many trained models as there are finished phases.

        Every model is evaluated on the same hidden tokens: the source at its own length, the long model with random
        new positions, with copied ones, and after each phase.

        Raises:
            LongformerError: the run has not begun, its source is gone, or the request is not for masked language
                models.
        """
        if request.stride is not None:
            raise LongformerError("--stride is for character models: a masked token is scored with its whole row")
        if not run.paths.start_directory.exists():
            raise LongformerError(
                f"{run.paths.root} has no model yet; go on with: longformer resume {run.paths.in_shell}"
            )
        self.check_data(run)
        length = request.sequence_length or self.config.phases[-1].sequence_length
        batch_size = request.batch_size or self.config.evaluation.batch_size
        models, scored = [], 0
        with Progress(console=Console(stderr=True), transient=True) as bar:
            for name, model, own_length in self._compared_models(run, length):
                asked = replace(
                    request,
                    sequence_length=own_length,
                    batch_size=batch_size * (length // own_length),
                    report_progress=partial(_show, bar, bar.add_task(name, total=None)),
                )
                scores = self.evaluate(model, 0, asked).scores
                models.append(ComparedModel(name, own_length, scores["bits_per_masked_token"]))
                scored = scores["scored"]
        values = {"split": request.split, "scored": scored, "rows": [asdict(each) for each in models]}
        return EvaluatedRun(_table(models, split=request.split, scored=scored), values)

    def _held_out_text(self, split: str) -> MaskedText:
        special = self.data.special_tokens
        tokens, labels = self.data.held_out(split)
        return MaskedText(
            tokens,
            labels,
            begin=special.begin,
            end=special.end,
            padding=special.padding,
            cross_document_attention=self.config.data.cross_document_attention,
        )

    def _pretrained_rows(self, origin: Path | None) -> int:
        """Returns how many rows of the position table come from the source, of the model in `origin` or the first."""
        config = self.model_config(origin)
        if origin is not None:
            return int(config.other[PRETRAINED_ROWS])
        settings, rows = self.source_settings(), config.max_position_embeddings
        new = int(self.data.long_shape(settings)["max_length"] - source_length(settings))
        return rows - new if new else int(settings.get(PRETRAINED_ROWS, rows))

    def _compared_models(self, run: Run, length: int) -> Iterator[tuple[str, LongformerForMaskedLM, int]]:
        """Yields the name of each model, the model, and the length of the sequences it reads."""
        start, source = run.paths.start_directory, str(self.config.model.source)
        if self.config.init is None:  # what an alias meant then
            source = run.paths.identity().start_model or source
        with open_model(source, store=self.config.tracking.uri) as opened:
            folder = model_folder(opened.folder)
            own_length = min(length, source_length(read_config(folder)))
            yield "source at its own length", _as_it_was(folder, own_length), own_length
        yield "long, random new positions", _with_random_positions(start), length
        yield "long, copied positions", LongformerForMaskedLM.from_pretrained(start), length
        steps = 0
        finished = zip(self.config.phases, run.finished_results(), run.evaluations(), strict=False)
        for phase, result, evaluation in finished:
            steps += evaluation["steps"]
            yield f"+ {steps:,} steps ({phase.name})", LongformerForMaskedLM.from_pretrained(result / "model"), length


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _as_it_was(source: Path, own_length: int) -> LongformerForMaskedLM:
    """Returns the source as a Longformer whose every token sees every other, which computes what the source does."""
    settings = read_config(source)
    if settings["model_type"] == LongformerConfig.family:
        return LongformerForMaskedLM.from_pretrained(source)
    with TemporaryDirectory(prefix="longformer-") as folder:
        target = Path(folder, "source")
        convert(source, target, max_length=source_length(settings), window=2 * own_length)
        return LongformerForMaskedLM.from_pretrained(target)


def _with_random_positions(start: Path) -> LongformerForMaskedLM:
    """Returns the long model with the rows of new positions as fresh ones are drawn."""
    model = LongformerForMaskedLM.from_pretrained(start)
    table: Tensor = model.longformer.embeddings.position_embeddings.weight.detach()
    new = table[model.config.other[PRETRAINED_ROWS] :]
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    new.copy_(model.config.initial_deviation * torch.randn(new.shape, generator=generator))
    return model


def _table(models: list[ComparedModel], *, split: str, scored: int) -> Table:
    title = f"bits per masked token on {split}: {scored:,} tokens, the same for every model"
    rows = [(each.model, f"{each.sequence_length:,}", f"{each.bits_per_masked_token:.3f}") for each in models]
    return terminal_table(("model", "rows of", "bits"), rows, title=title)
