"""The task `summarization`: a BART is made long, and learns to summarize documents phase by phase (spec 6)."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.prepare.documents import prepare_corpus
from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.shards.stream_manifest import is_prepared
from data_pipeline.sources.summaries import summary_corpus
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.runs.run import Run
from launcher.tasks.base import InputData, Judgement, JudgementRequest, PhaseCost, TrainingText
from launcher.tasks.long_source import check_source, source_settings
from launcher.tasks.summarization.config import Published, SummarizationRun
from longformer.errors import LongformerError

if TYPE_CHECKING:  # brings torch, as do the imports inside methods; checking a run file needs none of it
    from launcher.tasks.task_phase import TaskPhase
    from longformer.models.led.config import LEDConfig


def _bart(width: int, layers: int) -> dict[str, Any]:
    parts = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in (("layers", layers), ("attention_heads", width // 64), ("ffn_dim", 4 * width))
    }
    return {"model_type": "bart", "vocab_size": 50_265, "max_position_embeddings": 1_024, "d_model": width, **parts}


PUBLISHED: dict[Published, dict[str, Any]] = {
    "bart-base": _bart(768, 6),
    "bart-large": _bart(1_024, 12),
    "led-base-16384": _bart(768, 6)
    | {
        "model_type": "led",
        "max_encoder_position_embeddings": 16_384,
        "max_decoder_position_embeddings": 1_024,
        "attention_window": [1_024] * 6,
    },
}
"""Shapes of published models, as their config.json has them."""


@dataclass(frozen=True)
class SummarizationTask:
    """The whole run; see `launcher.tasks.base.Task`."""

    config: SummarizationRun
    has_start = True
    has_export = True

    @property
    def data_directory(self) -> Path:
        return self.config.data.directory

    def check(self) -> list[str]:
        check_source(self.config.model.source)
        if is_prepared(self.config.data.directory):
            return []
        TextTokenizer.open(self.config.model.source)
        summary_corpus(self.config.data.source, self.config.data.layout)
        return [f"{self.config.data.directory} does not exist yet: the data will be prepared when training starts"]

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        section = self.config.data
        data = prepare_corpus(
            summary_corpus(section.source, section.layout),
            tokenizer=TextTokenizer.open(self.config.model.source),
            output=section.directory,
            damaged_allowed=section.damaged_allowed,
            task_map=task_map,
        )
        return InputData(section.directory, data.fingerprint)

    def make_start(self, target: Path) -> None:
        from longformer.files import write_json
        from longformer.interop.checkpoint_files import CONFIG_FILE, GENERATION_FILE, read_json
        from longformer.interop.convert import convert

        section = self.config.model
        try:
            convert(section.source, target, max_length=section.max_length, window=section.window)
        except ValueError as error:
            raise LongformerError(f"model.source {section.source}: {error}") from error
        settings = read_json(target / CONFIG_FILE)
        begin, end = settings.get("bos_token_id", 0), settings.get("eos_token_id", 2)
        settings["decoder_start_token_id"] = end if section.decoder_starts_with == "end" else begin
        write_json(target / CONFIG_FILE, settings)
        special = {name: settings.get(name, default) for name, default in _SPECIAL_TOKENS.items()}
        own = {"decoder_start_token_id": settings["decoder_start_token_id"], "forced_eos_token_id": end}
        write_json(target / GENERATION_FILE, special | own | self.config.evaluation.generation)

    def check_start(self, model: Path, data: Path) -> None:
        from launcher.tasks.long_start import check_long_start

        length = max(phase.sequence_length for phase in self.config.phases)
        check_long_start(self.config.init, model, family="led", length=length)

    def phase(self, index: int, data: Path) -> "TaskPhase":
        from launcher.tasks.summarization.phase import SummarizationPhase

        return SummarizationPhase(self.config, index, data)

    def export(self, model: Path, target: Path) -> None:
        # What a phase leaves is a folder of Hugging Face's layout already.
        shutil.copytree(model, target, dirs_exist_ok=True)

    def report(self, run: Run) -> None:
        from launcher.tasks.summarization.report import write_and_show_report
        from launcher.tasks.summarization_page import write_summarization_page

        write_summarization_page(self.config, run)
        write_and_show_report(self.config, run)

    def judge(self, run: Run, request: JudgementRequest) -> Judgement:
        from launcher.tasks.summarization.report import judge

        return judge(self.config, run, request)

    def parameters(self) -> int:
        from longformer.costs.led import parameter_count

        return parameter_count(led_config(self.config))

    def phase_cost(self, index: int, *, ranks: int, on_gpu: bool) -> PhaseCost:
        from launcher.tasks.training_layout import training_layout
        from longformer.costs.led import training_flops_per_token, training_memory

        length, model = self.config.phases[index].sequence_length, led_config(self.config)
        target_length = self.config.data.target_length
        return PhaseCost(
            flops_per_token=training_flops_per_token(model, length, target_length=target_length),
            memory=training_memory(
                model,
                training_layout(self.config, index, ranks=ranks, on_gpu=on_gpu),
                source_length=length,
                target_length=target_length,
            ),
        )

    def training_text(self) -> TrainingText | None:
        directory = self.config.data.directory
        if not is_prepared(directory):
            return None
        shards = DocumentData.open(str(directory)).manifest.splits["train"]
        return TrainingText(sum(shard.tokens for shard in shards), len(shards))


_SPECIAL_TOKENS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
"""With what they are where config.json does not say."""


def led_config(config: SummarizationRun) -> "LEDConfig":
    """Return the shape of the long model, read from the source or known of the published model that stands for it.

    Raises:
        LongformerError: there is no source, or it is not a model that becomes an LED.
    """
    from longformer.interop.convert_led import FAMILIES, long_settings
    from longformer.interop.huggingface import config_from_json
    from longformer.models.led.config import LEDConfig

    section = config.model
    stand_in = PUBLISHED[section.published] if section.published is not None else None
    settings = source_settings(section.source, stand_in=stand_in, families=FAMILIES)
    return config_from_json(long_settings(settings, max_length=section.max_length, window=section.window), LEDConfig)
