"""What is to be registered: the model of a run or of a folder, its task, its scores, and how its text is scored."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.characters.config import CharacterRun, EvaluationSection
from launcher.tasks.characters.phase import VOCABULARY_FILE
from launcher.tasks.characters.trained_model import TrainedModel, newest_result
from longformer.errors import LongformerError
from longformer.inference.predictor import Predictor, task_of
from longformer.interop.checkpoint_files import GENERATION_FILE
from longformer.interop.tokenizer import FILES
from longformer.models.char_lm.storage import CONFIG_FILE

CHARACTERS = "characters"
"""Task of the character model; the others are those of `longformer.inference.predictor`."""


@dataclass(frozen=True)
class Exportable:
    """A trained model on disk and what is known of it."""

    model: Path
    task: str
    settings: dict[str, Any]
    """What whoever serves it must know; the task among it."""
    metrics: dict[str, float]
    run: Run | None = None
    """The run that trained it."""

    @classmethod
    def find(cls, source: Path) -> "Exportable":
        """Look at a run directory, whose newest finished phase counts, or at a model folder.

        Raises:
            LongformerError: it is neither, or holds no finished or no known model.
        """
        if not source.is_dir():
            raise LongformerError(f"{source} does not exist: give a run directory or the folder of a model")
        if not RunPaths(source).exists:
            return cls._of_folder(source, EvaluationSection(), {}, None)
        return cls.of_run(Run.open(source))

    @classmethod
    def of_run(cls, run: Run) -> "Exportable":
        """Look at the newest finished phase of a run.

        Raises:
            LongformerError: no phase is finished, or its result is damaged.
        """
        result = newest_result(run)
        metrics = dict(_metrics(json.loads((result / "evaluation.json").read_text(encoding="utf-8"))))
        config = run.config
        evaluation = config.evaluation if isinstance(config, CharacterRun) else EvaluationSection()
        model = run.paths.export_directory if run.paths.export_directory.exists() else result / "model"
        return cls._of_folder(model, evaluation, metrics, run)

    @classmethod
    def _of_folder(
        cls, model: Path, evaluation: EvaluationSection, metrics: dict[str, float], run: Run | None
    ) -> "Exportable":
        if (model / VOCABULARY_FILE).is_file():
            how = evaluation.model_dump(include={"sequence_length", "stride", "batch_size"})
            return cls(model, CHARACTERS, {"task": CHARACTERS, **how}, metrics, run)
        if not (model / CONFIG_FILE).is_file():
            raise LongformerError(
                f"{model} is neither a run directory (no identity.json) nor a model (no {CONFIG_FILE})"
            )
        task = task_of(model)
        if task == "choose":
            raise LongformerError(f"{model} chooses between texts, which a registered model cannot be asked")
        return cls(model, task, {"task": task}, metrics, run)

    def write(self, target: Path) -> None:
        """Write the model into a new folder: a Longformer or an LED as Hugging Face lays it out, with its tokenizer.

        Raises:
            LongformerError: the model is damaged.
        """
        if self.task == CHARACTERS:
            trained = TrainedModel.load(self.model)
            trained.model.save_pretrained(target)
            trained.vocabulary.save(target / VOCABULARY_FILE)
            return
        Predictor.load(self.model, self.task).model.save_pretrained(target)
        for name in (*FILES, GENERATION_FILE):
            if (self.model / name).is_file():
                shutil.copyfile(self.model / name, target / name)


def _metrics(evaluation: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of evaluation.json under names such as test/bits_per_character."""
    for name, value in evaluation.items():
        if isinstance(value, Mapping):
            yield from _metrics(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)
