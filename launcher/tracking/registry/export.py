"""What is to be registered: the model of a run or of a folder, what it can be asked, and its scores."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.registry import task_of
from launcher.tracking.registry.open_model import model_folder
from longformer.errors import LongformerError
from longformer.inference.serving import ability_of, rewrite_model
from longformer.interop.model_folder import hub_hint


@dataclass(frozen=True)
class Exportable:
    """A trained model on disk and what is known of it."""

    model: Path
    ability: str
    """What it can be asked, in the words of `longformer.inference.serving`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How it answers, where its run file says so."""
    metrics: dict[str, float] = field(default_factory=dict)
    run: Run | None = None
    """The run that trained it."""

    @classmethod
    def find(cls, source: Path) -> "Exportable":
        """Looks at a run directory, whose newest finished phase counts, or at a model folder.

        Raises:
            LongformerError: it is neither, or holds no finished or no known model.
        """
        if not source.is_dir():
            raise LongformerError(
                f"{source} does not exist: give a run directory or the folder of a model{hub_hint(source)}"
            )
        if not RunPaths(source).exists:
            return cls(source, ability_of(source))
        run = Run.open(source)
        result = run.newest_result()
        model = model_folder(source)
        return cls(
            model,
            ability_of(model),
            task_of(run.config).answer_settings,
            dict(_metrics(json.loads((result / "evaluation.json").read_text(encoding="utf-8")))),
            run,
        )

    def write(self, target: Path) -> None:
        """Writes the model into a new folder: a Longformer or an LED as Hugging Face lays it out, with its tokenizer.

        Raises:
            LongformerError: the model is damaged.
        """
        rewrite_model(self.model, self.ability, target)


def _metrics(evaluation: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers of evaluation.json under names such as test/rouge2."""
    for name, value in evaluation.items():
        if isinstance(value, Mapping):
            yield from _metrics(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)
