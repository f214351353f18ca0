"""A phase of the task `characters` on one rank."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from data_pipeline.loading.rank_loader import SequenceBatches
from data_pipeline.shards.stream_dataset import PreparedData
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.task_phase import ReportProgress, batch_sizes, save_weights
from longformer.costs.char_lm import training_flops_per_token
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM
from longformer.training.distributed import Ranks
from longformer.training.objectives import NEXT_CHARACTER

VOCABULARY_FILE = "vocabulary.json"


@dataclass(frozen=True)
class CharacterPhase:
    """One phase; see `launcher.tasks.base.TaskPhase`."""

    config: CharacterRun
    index: int
    directory: Path
    """Of the prepared text."""
    objective = NEXT_CHARACTER

    @cached_property
    def _data(self) -> PreparedData:
        return PreparedData.open(self.directory)

    @cached_property
    def _model_config(self) -> CharacterModelConfig:
        return self.config.character_model(self.index, len(self._data.vocabulary))

    def batches(self, ranks: Ranks, left_out: Collection[int]) -> SequenceBatches:
        return SequenceBatches(
            self._data.split("train"),
            sequence_length=self.config.phases[self.index].sequence_length,
            **batch_sizes(self.config, self.index, ranks),
            # Phases of equal length would otherwise see the same samples in the same order.
            seed=self.config.seed + self.index,
            workers=self.config.data.loader_workers,
            left_out=left_out,
        )

    def model(self, origin: Path | None) -> CharacterLM:
        model = CharacterLM(self._model_config)
        if origin is not None:
            model.load_weights(origin)
        return model

    def flops_per_token(self, origin: Path | None) -> float:
        return training_flops_per_token(self._model_config, self.config.phases[self.index].sequence_length)

    def evaluate(
        self, model: nn.Module, ranks: Ranks, *, with_test: bool, report_progress: ReportProgress
    ) -> dict[str, dict[str, Any]]:
        """Return bits per character of the validation split and, on request, of the whole test split."""
        settings = self.config.evaluation
        limits = {"validation": settings.limit_tokens} | ({"test": None} if with_test else {})
        results = {}
        for name, limit in limits.items():
            stream = self._data.split(name)
            score = evaluate_bits_per_character(
                model,
                stream.read(0, min(len(stream), limit or len(stream))),
                sequence_length=settings.sequence_length,
                stride=settings.stride,
                batch_size=settings.batch_size,
                rank=ranks.rank,
                world_size=ranks.world_size,
                report_progress=report_progress,
            )
            results[name] = {
                "bits_per_character": score.bits,
                "scored": score.scored,
                "scored_without_full_context": score.scored_without_full_context,
                "sequence_length": settings.sequence_length,
                "stride": settings.stride,
            }
        return results

    def write_model(self, weights: dict[str, Tensor], origin: Path | None, target: Path) -> None:
        save_weights(CharacterLM(self._model_config), weights, target)
        shutil.copyfile(self.directory / VOCABULARY_FILE, target / VOCABULARY_FILE)
