"""A phase of the task `summarization` on one rank."""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from data_pipeline.loading.document_loader import DocumentBatches
from launcher.tasks.pretrained import open_long_model, write_long_model
from launcher.tasks.summarization.config import SummarizationRun
from launcher.tasks.summarization_data import held_out, training_rows, written_text
from launcher.tasks.task_phase import ReportProgress, batch_sizes, judged_splits
from longformer.costs.led import training_flops_per_token
from longformer.evaluation.summaries import Judged, judge_summaries, summary_of, write_table
from longformer.interop.checkpoint_files import CONFIG_FILE, read_json
from longformer.interop.huggingface import config_from_json
from longformer.models import LEDConfig, LEDForConditionalGeneration
from longformer.training.distributed import Ranks
from longformer.training.objectives import Objective, summary_tokens


def table_name(split: str) -> str:
    """Return the name of the file with a split's documents and what was written about them."""
    return f"summaries-{split}.jsonl"


@dataclass(frozen=True)
class SummarizationPhase:
    """One phase; see `launcher.tasks.task_phase.TaskPhase`."""

    config: SummarizationRun
    index: int
    directory: Path
    """Of the prepared summaries."""
    tables: dict[str, list[Judged]] = field(default_factory=dict)
    """What was written about each split that was judged, for `write_model`."""

    @cached_property
    def objective(self) -> Objective:
        return summary_tokens(self.config.data.label_smoothing)

    def batches(self, ranks: Ranks, left_out: Collection[int]) -> DocumentBatches:
        return DocumentBatches(
            training_rows(self.config, self.index, self.directory),
            **batch_sizes(self.config, self.index, ranks),
            bucket_batches=self.config.data.bucket_batches,
            seed=self.config.seed + self.index,
            workers=self.config.data.loader_workers,
            left_out=left_out,
        )

    def model(self, origin: Path | None) -> LEDForConditionalGeneration:
        return open_long_model(LEDForConditionalGeneration, origin, self.config)

    def flops_per_token(self, origin: Path | None) -> float:
        assert origin is not None, "the run has a start"
        config = config_from_json(read_json(origin / CONFIG_FILE), LEDConfig)
        length, target_length = self.config.phases[self.index].sequence_length, self.config.data.target_length
        return training_flops_per_token(config, length, target_length=target_length)

    def evaluate(
        self, model: nn.Module, ranks: Ranks, *, with_test: bool, report_progress: ReportProgress
    ) -> dict[str, dict[str, Any]]:
        """Return ROUGE of the validation split and, on request, of the test split."""
        # What DeepSpeed wraps has whole weights below ZeRO 3, and only that can write.
        whole: Any = getattr(model, "module", model)
        decode = written_text(self.directory)
        results = {}
        for split in judged_splits(with_test=with_test):
            documents = held_out(
                self.directory,
                split,
                source_length=self.config.phases[self.index].sequence_length,
                limit=self.config.evaluation.limit_documents,
            )
            self.tables[split] = judge_summaries(
                whole,
                documents,
                decode,
                settings=self.config.evaluation.generation,
                batch_size=self.config.evaluation.batch_size,
                rank=ranks.rank,
                world_size=ranks.world_size,
                report_progress=report_progress,
            )
            results[split] = summary_of(self.tables[split])
        return results

    def write_model(self, weights: dict[str, Tensor], origin: Path | None, target: Path) -> None:
        """Write the model, and beside its directory the tables of what it has written."""
        write_long_model(self.model(origin), weights, origin, target)
        for split, table in self.tables.items():
            write_table(target.parent / table_name(split), table)
