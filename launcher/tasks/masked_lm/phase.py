"""A phase of the task `masked_lm` on one rank."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from data_pipeline.loading.document_loader import DocumentBatches
from data_pipeline.sampling.masking import Masking
from launcher.tasks.masked_lm.config import MaskedLMRun
from launcher.tasks.masked_lm_data import held_out_text, training_rows
from launcher.tasks.pretrained import open_long_model, write_long_model
from launcher.tasks.task_phase import ReportProgress, batch_sizes, judged_splits
from longformer.costs.masked_lm import global_projections, training_flops_per_token
from longformer.evaluation.bits import evaluate_bits_per_masked_token
from longformer.interop.checkpoint_files import CONFIG_FILE, read_json
from longformer.interop.huggingface import config_from_json
from longformer.models import LongformerForMaskedLM
from longformer.models.common.freezing import PRETRAINED_ROWS, freeze_pretrained
from longformer.models.longformer.config import LongformerConfig
from longformer.training.distributed import Ranks
from longformer.training.objectives import MASKED_TOKENS


@dataclass(frozen=True)
class MaskedLMPhase:
    """One phase; see `launcher.tasks.task_phase.TaskPhase`."""

    config: MaskedLMRun
    index: int
    directory: Path
    """Of the prepared documents."""
    objective = MASKED_TOKENS

    def batches(self, ranks: Ranks, left_out: Collection[int]) -> DocumentBatches:
        rows = training_rows(self.config, self.index, self.directory)
        return DocumentBatches(
            rows,
            **batch_sizes(self.config, self.index, ranks),
            masking=Masking(rows.tokenizer, seed=self.config.seed + self.index, chosen=self.config.data.masked),
            workers=self.config.data.loader_workers,
            left_out=left_out,
        )

    def model(self, origin: Path | None) -> LongformerForMaskedLM:
        model = open_long_model(LongformerForMaskedLM, origin, self.config)
        if self.config.model.freeze_pretrained:
            freeze_pretrained(model, model.config.other[PRETRAINED_ROWS])
        # No token is global here, so these have no gradient; left to the optimizer, they would still decay.
        for parameter in global_projections(model):
            parameter.requires_grad_(False)
        return model

    def flops_per_token(self, origin: Path | None) -> float:
        assert origin is not None, "the run has a start"
        config = config_from_json(read_json(origin / CONFIG_FILE), LongformerConfig)
        length = self.config.phases[self.index].sequence_length
        return training_flops_per_token(config, length, masked=self.config.data.masked)

    def evaluate(
        self, model: nn.Module, ranks: Ranks, *, with_test: bool, report_progress: ReportProgress
    ) -> dict[str, dict[str, Any]]:
        """Return bits per masked token of the validation split and, on request, of the test split."""
        length = self.config.phases[self.index].sequence_length
        results = {}
        for split in judged_splits(with_test=with_test):
            score = evaluate_bits_per_masked_token(
                model,
                held_out_text(self.config, self.directory, split),
                sequence_length=length,
                batch_size=self.config.evaluation.batch_size,
                rank=ranks.rank,
                world_size=ranks.world_size,
                report_progress=report_progress,
            )
            results[split] = {
                "bits_per_masked_token": score.bits,
                "scored": score.scored,
                "sequence_length": length,
            }
        return results

    def write_model(self, weights: dict[str, Tensor], origin: Path | None, target: Path) -> None:
        write_long_model(self.model(origin), weights, origin, target)
