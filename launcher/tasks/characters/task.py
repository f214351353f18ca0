"""The task `characters`: a character language model of the Longformer paper that learns one text."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.prepare.characters import prepare
from data_pipeline.prepare.parallel import TaskMap
from launcher.runs.run import Run
from launcher.tasks import character_checks
from launcher.tasks.base import InputData, Judgement, JudgementRequest, PhaseCost, TrainingText
from launcher.tasks.characters.config import CharacterRun

if TYPE_CHECKING:  # brings torch, as do the imports inside methods; checking a run file needs none of it
    from launcher.tasks.task_phase import TaskPhase

LARGEST_BYTE_VOCABULARY = 256
"""Assumed until the data is prepared; a smaller vocabulary changes memory and FLOPs by less than a percent."""


@dataclass(frozen=True)
class CharacterTask:
    """The whole run; see `launcher.tasks.base.Task`."""

    config: CharacterRun
    has_start = False
    has_export = False

    @property
    def data_directory(self) -> Path:
        return self.config.data.directory

    def check(self) -> list[str]:
        return character_checks.check_surroundings(self.config)

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        # Characters are read, not tokenised: there is no work to hand out.
        section = self.config.data
        data = prepare(section.recipe, source=section.source, output=section.directory, limit_bytes=section.limit_bytes)
        return InputData(data.directory, data.fingerprint)

    def make_start(self, target: Path) -> None:
        raise NotImplementedError("a character model starts from random weights")

    def check_start(self, model: Path, data: Path) -> None:
        from launcher.tasks.character_start import check_start

        check_start(self.config, model, data)

    def phase(self, index: int, data: Path) -> "TaskPhase":
        from launcher.tasks.characters.phase import CharacterPhase

        return CharacterPhase(self.config, index, data)

    def export(self, model: Path, target: Path) -> None:
        raise NotImplementedError("a character model has one form only")

    def report(self, run: Run) -> None:
        from launcher.tasks.character_page import write_character_page
        from launcher.tasks.characters.examples import write_examples
        from launcher.tasks.characters.report import show_report, write_report

        summary = write_report(run)
        write_examples(run)
        write_character_page(run)
        show_report(summary)

    def judge(self, run: Run, request: JudgementRequest) -> Judgement:
        from launcher.tasks.character_evaluation import judge

        return judge(self.config, run, request)

    def parameters(self) -> int:
        from longformer.costs.char_lm import parameter_count

        return parameter_count(self.config.character_model(0, self._vocabulary_size))

    def phase_cost(self, index: int, *, ranks: int, on_gpu: bool) -> PhaseCost:
        from launcher.tasks.character_cost import phase_memory
        from longformer.costs.char_lm import training_flops_per_token

        vocabulary_size = self._vocabulary_size
        model = self.config.character_model(index, vocabulary_size)
        return PhaseCost(
            flops_per_token=training_flops_per_token(model, self.config.phases[index].sequence_length),
            memory=phase_memory(self.config, index, vocabulary_size=vocabulary_size, ranks=ranks),
        )

    def training_text(self) -> TrainingText | None:
        data = character_checks.prepared_data(self.config)
        if data is None:
            return None
        train = data.manifest.splits["train"]
        return TrainingText(train.tokens, len(train.shards))

    @property
    def _vocabulary_size(self) -> int:
        data = character_checks.prepared_data(self.config)
        return len(data.vocabulary) if data else LARGEST_BYTE_VOCABULARY
