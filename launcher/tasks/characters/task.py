"""The task `characters`: a character language model of the Longformer paper that learns one text."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, Task, TaskReport
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.characters.data import CharacterData
from longformer.errors import LongformerError
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.inference.characters import VOCABULARY_FILE, read_symbols
from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM
from longformer.models.common.weightless import without_weights
from longformer.training.objectives import NEXT_CHARACTER, Lengths, Objective


@dataclass(frozen=True)
class CharacterTask(Task[CharacterRun, CharacterData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    @property
    def objective(self) -> Objective:
        return NEXT_CHARACTER

    def build_model(self, index: int, origin: Path | None) -> CharacterLM:
        model = CharacterLM(self._model_config(index))
        if origin is not None:
            model.load_weights(origin)
        return model

    def blank_model(self, index: int, origin: Path | None) -> CharacterLM:
        with without_weights():
            return CharacterLM(self._model_config(index))

    def copy_companions(self, origin: Path | None, target: Path) -> None:
        shutil.copyfile(self.data.directory / VOCABULARY_FILE, target / VOCABULARY_FILE)

    def check_start(self, model: Path) -> None:
        if not (model / VOCABULARY_FILE).is_file():
            raise LongformerError(
                f"init: {self.config.init} is no character model (no {VOCABULARY_FILE}), but the run trains one"
            )
        if read_symbols(model) != self.data.symbols:
            raise LongformerError(
                f"init: {self.config.init} reads other characters than {self.data.directory} holds; prepare the data "
                "with the recipe that the model was trained on"
            )
        with torch.random.fork_rng():
            self.build_model(0, model)

    def evaluate(self, model: nn.Module, index: int, request: EvaluationRequest) -> Evaluation:
        settings = self.config.evaluation
        sequence_length = request.sequence_length or settings.sequence_length
        stride = request.stride or settings.stride
        if stride > sequence_length:
            raise LongformerError(f"the stride ({stride}) must not exceed the sequence length ({sequence_length})")
        is_limited = (request.within_phase or request.after_phase) and request.split == "validation"
        result = evaluate_bits_per_character(
            model,
            self.data.text(request.split, settings.limit_tokens if is_limited else None),
            sequence_length=sequence_length,
            stride=stride,
            batch_size=request.batch_size or settings.batch_size,
            rank=request.rank,
            world_size=request.world_size,
            report_progress=request.report_progress,
        )
        return Evaluation(
            {
                "bits_per_character": result.bits,
                "scored": result.scored,
                "scored_without_full_context": result.scored_without_full_context,
                "sequence_length": sequence_length,
                "stride": stride,
            }
        )

    def predictions(self, lengths: Lengths) -> float:
        return lengths.read

    def report(self, run: Run) -> TaskReport:
        from launcher.tasks.characters.report import report_of  # brings matplotlib, which no rank needs

        ranks = run.paths.identity().ranks
        layouts = [self.layout(index, ranks=ranks, on_gpu=False) for index in range(len(self.config.phases))]
        memory = [self.cost(index).memory(layout).total for index, layout in enumerate(layouts)]
        return report_of(self.config, self.data, run, memory)

    @property
    def answer_settings(self) -> dict[str, Any]:
        return self.config.evaluation.model_dump(include={"sequence_length", "stride", "batch_size"})

    def _model_config(self, index: int) -> CharacterModelConfig:
        return self.config.character_model(index, self.data.vocabulary_size)
