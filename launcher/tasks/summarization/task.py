"""The task `summarization`: a BART is made long, and learns to summarize documents phase by phase (semantics.md 5)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, TaskReport
from launcher.tasks.pretrained import PretrainedTask
from launcher.tasks.summarization.config import PUBLISHED, SummarizationRun
from launcher.tasks.summarization.data import SummarizationData
from longformer.errors import LongformerError
from longformer.evaluation.summaries import evaluate_summaries, summary_of
from longformer.evaluation.words import text_units
from longformer.files import write_json
from longformer.interop.checkpoint_files import GENERATION_FILE
from longformer.interop.convert_led import long_settings
from longformer.interop.huggingface import config_from_json
from longformer.interop.model_folder import CONFIG_FILE, read_config
from longformer.models import LEDConfig, LEDForConditionalGeneration
from longformer.training.objectives import Lengths, Objective, summary_tokens

_SPECIAL_TOKENS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
"""With what they are where config.json does not say."""


@dataclass(frozen=True)
class SummarizationTask(PretrainedTask[SummarizationRun, SummarizationData]):
    """The whole run; see `launcher.tasks.base.Task`."""

    model_class: ClassVar = LEDForConditionalGeneration
    table_name: ClassVar[str] = "summaries"

    @property
    def published_settings(self) -> dict[str, Any] | None:
        published = self.config.model.published
        return None if published is None else PUBLISHED[published]

    @property
    def objective(self) -> Objective:
        return summary_tokens(self.config.data.label_smoothing)

    def build_model(self, index: int, origin: Path | None) -> LEDForConditionalGeneration:
        model: LEDForConditionalGeneration = super().build_model(index, origin)
        if self.config.training.zero_stage == 3 and (model.config.encoder_layerdrop or model.config.decoder_layerdrop):
            raise LongformerError(
                "training.zero_stage is 3, but the model drops whole layers, each rank others; choose 2 or less, or "
                f"set encoder_layerdrop and decoder_layerdrop to 0 in {CONFIG_FILE} of the source"
            )
        return model

    def write_start(self, target: Path) -> str:
        origin = super().write_start(target)
        self._write_settings(target)
        return origin

    def settle_start(self, start: Path) -> None:
        super().settle_start(start)
        self._write_settings(start)

    def _write_settings(self, folder: Path) -> None:
        """Writes how the model starts a summary, and the settings for generation that the run file has."""
        settings = read_config(folder)
        form = self.data.form(self.data.corpora()[0].opened_tokenizer())
        settings["decoder_start_token_id"] = form.start
        settings["forced_bos_token_id"] = form.forced_begin
        write_json(folder / CONFIG_FILE, settings)
        special = {name: settings.get(name, default) for name, default in _SPECIAL_TOKENS.items()}
        own = {"decoder_start_token_id": form.start, "forced_eos_token_id": form.end}
        if form.forced_begin is not None:
            own["forced_bos_token_id"] = form.forced_begin
        write_json(folder / GENERATION_FILE, special | own | self.config.evaluation.generation)

    def evaluate(self, model: Any, index: int, request: EvaluationRequest) -> Evaluation:
        """Returns ROUGE of what the model writes about the documents of a split, and of extracts beside it."""
        documents = self.data.held_out(
            request.split,
            source_length=request.sequence_length or self.config.phases[index].sequence_length,
            limit=self.config.evaluation.limit_documents,
        )
        references = [reference for document in documents for reference in document.references]
        try:
            units = text_units(references, self.config.evaluation.tokenizer, self.data.encoder())
        except ValueError as error:
            raise LongformerError(str(error)) from None
        table = evaluate_summaries(
            model,
            documents,
            self.data.decoder(),
            settings=self.config.evaluation.generation,
            batch_size=request.batch_size or self.config.evaluation.batch_size,
            units=units,
            rank=request.rank,
            world_size=request.world_size,
            report_progress=request.report_progress,
        )
        return Evaluation(summary_of(table, units), list(map(asdict, table)))

    def converted_config(self, settings: dict[str, Any]) -> LEDConfig:
        return config_from_json(long_settings(settings, **self.data.long_shape(settings)), LEDConfig)

    def full_lengths(self, index: int) -> list[Lengths]:
        return [Lengths(self.config.phases[index].sequence_length, self.config.data.target_length)]

    def predictions(self, lengths: Lengths) -> float:
        return lengths.written

    def report(self, run: Run) -> TaskReport:
        from launcher.tasks.summarization.report import report_of  # brings matplotlib, which no rank needs

        return report_of(self.config, self.data, run)
