"""The task `masked_lm`: a short encoder is made long, and goes on learning to predict hidden tokens (spec 4)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.prepare.documents import prepare_documents
from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.shards.stream_manifest import is_prepared
from data_pipeline.sources.corpus import find_corpus_files
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.runs.run import Run
from launcher.tasks.base import InputData, Judgement, JudgementRequest, PhaseCost, TrainingText
from launcher.tasks.long_source import check_source
from launcher.tasks.masked_lm.config import MaskedLMRun
from longformer.errors import LongformerError

if TYPE_CHECKING:  # brings torch, as do the imports inside methods; checking a run file needs none of it
    from launcher.tasks.task_phase import TaskPhase


@dataclass(frozen=True)
class MaskedLMTask:
    """The whole run; see `launcher.tasks.base.Task`."""

    config: MaskedLMRun
    has_start = True
    has_export = True

    @property
    def data_directory(self) -> Path:
        return self.config.data.directory

    def check(self) -> list[str]:
        source = self.config.model.source
        check_source(source)
        missing = [corpus for corpus in self.config.data.sources if not is_prepared(self._directory(corpus.name))]
        for corpus in missing:
            find_corpus_files(corpus.path)
        if not missing:
            self._check_rows()
            return []
        tokenizer = TextTokenizer.open(self._tokenizer)
        known = json.loads((source / "config.json").read_text()).get("vocab_size", 0)
        if tokenizer.vocabulary_size > known:
            raise LongformerError(
                f"the tokenizer {self._tokenizer} has {tokenizer.vocabulary_size:,} tokens, but the model knows only "
                f"{known:,}; give the model's own tokenizer"
            )
        return [f"{', '.join(corpus.name for corpus in missing)} will be prepared when training starts"]

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        tokenizer = TextTokenizer.open(self._tokenizer)
        prepared = [
            prepare_documents(
                source=corpus.path,
                tokenizer=tokenizer,
                output=self._directory(corpus.name),
                field=corpus.field,
                damaged_allowed=corpus.damaged_allowed,
                task_map=task_map,
            )
            for corpus in self.config.data.sources
        ]
        content = json.dumps([data.fingerprint for data in prepared])
        return InputData(self.config.data.directory, hashlib.sha256(content.encode()).hexdigest())

    def make_start(self, target: Path) -> None:
        from longformer.interop.convert import convert
        from longformer.interop.tokenizer import WHOLE, tokenizer_file

        section = self.config.model
        try:
            convert(
                section.source,
                target,
                max_length=section.max_length,
                window=section.window,
                freeze_pretrained=section.freeze_pretrained,
            )
        except ValueError as error:
            raise LongformerError(f"model.source {section.source}: {error}") from error
        if tokenizer_file(target) is None:
            TextTokenizer.open(self._tokenizer).save(target / WHOLE)

    def check_start(self, model: Path, data: Path) -> None:
        from launcher.tasks.long_start import check_long_start
        from longformer.models.common.freezing import PRETRAINED_ROWS

        check_long_start(
            self.config.init,
            model,
            family="longformer",
            length=max(phase.sequence_length for phase in self.config.phases),
            needed=PRETRAINED_ROWS if self.config.model.freeze_pretrained else None,
        )

    def phase(self, index: int, data: Path) -> "TaskPhase":
        from launcher.tasks.masked_lm.phase import MaskedLMPhase

        return MaskedLMPhase(self.config, index, data)

    def export(self, model: Path, target: Path) -> None:
        from launcher.tasks.masked_lm_export import export

        export(model, target)

    def report(self, run: Run) -> None:
        from launcher.tasks.masked_lm.report import write_and_show_report
        from launcher.tasks.masked_lm_page import write_masked_lm_page

        write_masked_lm_page(self.config, run)
        write_and_show_report(run)

    def judge(self, run: Run, request: JudgementRequest) -> Judgement:
        from launcher.tasks.masked_lm.evaluate import judge

        return judge(self.config, run, request)

    def parameters(self) -> int:
        from launcher.tasks.masked_lm_shape import long_model
        from longformer.costs.masked_lm import parameter_count

        return parameter_count(long_model(self.config.model))

    def phase_cost(self, index: int, *, ranks: int, on_gpu: bool) -> PhaseCost:
        from launcher.tasks.masked_lm_shape import long_model, new_rows
        from launcher.tasks.training_layout import training_layout
        from longformer.costs.masked_lm import parameter_count, trained_count, training_flops_per_token, training_memory

        length, section = self.config.phases[index].sequence_length, self.config.model
        model = long_model(section)
        only_new = section.freeze_pretrained
        return PhaseCost(
            flops_per_token=training_flops_per_token(model, length, masked=self.config.data.masked),
            memory=training_memory(
                model,
                training_layout(self.config, index, ranks=ranks, on_gpu=on_gpu),
                weights=parameter_count(model),
                trained=new_rows(section) * model.hidden_size if only_new else trained_count(model),
                sequence_length=length,
            ),
        )

    def training_text(self) -> TrainingText | None:
        directories = [self._directory(corpus.name) for corpus in self.config.data.sources]
        if not all(map(is_prepared, directories)):
            return None
        shards = [shard for each in directories for shard in DocumentData.open(str(each)).manifest.splits["train"]]
        return TrainingText(sum(shard.tokens for shard in shards), len(shards))

    @property
    def _tokenizer(self) -> Path:
        return self.config.data.tokenizer or self.config.model.source

    def _directory(self, corpus: str) -> Path:
        return self.config.data.directory / corpus

    def _check_rows(self) -> None:
        from data_pipeline.sampling.sequences import check_enough
        from launcher.tasks.masked_lm_data import training_rows

        for index, phase in enumerate(self.config.phases):
            check_enough(
                training_rows(self.config, index, self.config.data.directory), global_batch_size=phase.batch_size
            )
