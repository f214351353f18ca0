"""What the tasks share that learn labels of texts: how texts are read, and what a model is told of its classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from launcher.tasks.base import EvaluationRequest
from launcher.tasks.classes import ClassesData
from launcher.tasks.examples import LabelledData
from launcher.tasks.pretrained import PretrainedTask
from launcher.tasks.sections import ClassesRun, LabelledRun
from longformer.evaluation.distributed import gathered
from longformer.inference.classification import Reading, batches_by_length
from longformer.training.objectives import Objective, weighted_labels

CLASSIFIER = "classifier"
"""The part of a model that tells classes apart."""

Config = TypeVar("Config", bound=LabelledRun)
Data = TypeVar("Data", bound=LabelledData[Any])
Part = TypeVar("Part")
WithClasses = TypeVar("WithClasses", bound=ClassesRun)
DataWithClasses = TypeVar("DataWithClasses", bound=ClassesData[Any])


@dataclass(frozen=True)
class LabelTask(PretrainedTask[Config, Data], Generic[Config, Data]):
    """A task on texts with labels, of which the trained model reads as much as while it was evaluated."""

    def build_model(self, index: int, origin: Path | None) -> Any:
        model = super().build_model(index, origin)
        self.reading(index).keep_in(model.config)
        return model

    def reading(self, index: int, length: int | None = None) -> Reading:
        """Returns what is read of texts in a phase, or with sequences of another length."""
        return Reading(length or self.config.phases[index].sequence_length, self.config.data.long_documents)

    def read_parts(
        self,
        model: Any,
        parts: Sequence[Part],
        read: Callable[[list[Part], torch.device], Sequence[Any]],
        *,
        length: Callable[[Part], int],
        request: EvaluationRequest,
    ) -> list[Any]:
        """Returns what a model finds in parts of texts, in their order; all ranks share the work and return the same.

        Args:
            model: reads them.
            parts: what is read at a time, in batches of similar length.
            read: returns what is found for each part of a batch, fit for pickling.
            length: of a part, in tokens.
            request: which part of the work is this rank's.
        """
        batch_size = request.batch_size or self.config.evaluation.batch_size
        batches = batches_by_length(list(enumerate(parts)), batch_size, length=lambda part: length(part[1]))

        def predict(batch: list[tuple[int, Part]], device: torch.device) -> list[tuple[int, Any]]:
            found = read([part for _, part in batch], device)
            return [(place, each) for (place, _), each in zip(batch, found, strict=True)]

        found = gathered(
            predict,
            batches,
            model,
            rank=request.rank,
            world_size=request.world_size,
            report_progress=request.report_progress,
        )
        return [each for _, each in sorted(found, key=lambda result: result[0])]

    def averaged(
        self,
        model: Any,
        parts_of_texts: Sequence[Sequence[Part]],
        read: Callable[[list[Part], torch.device], Sequence[Any]],
        *,
        length: Callable[[Part], int],
        request: EvaluationRequest,
    ) -> list[np.ndarray]:
        """Returns the mean of what is found in the parts of each text; other arguments as in `read_parts`."""
        parts = [part for of_text in parts_of_texts for part in of_text]
        found = iter(self.read_parts(model, parts, read, length=length, request=request))
        return [np.mean(list(islice(found, len(of_text))), axis=0) for of_text in parts_of_texts]


@dataclass(frozen=True)
class ClassesTask(LabelTask[WithClasses, DataWithClasses], Generic[WithClasses, DataWithClasses]):
    """A task whose labels are classes: the model has an output for each, and knows its name."""

    @property
    def model_changes(self) -> dict[str, Any]:
        return {"num_labels": len(self.outputs)}

    @property
    def objective(self) -> Objective:
        return weighted_labels(self.data.class_weights())

    @property
    def conversion(self) -> dict[str, Any]:
        return super().conversion | ({} if self._source_has_outputs else {"without": (CLASSIFIER,)})

    @property
    def _source_has_outputs(self) -> bool:
        """Whether the source tells the same classes apart in the same order, as far as it names them."""
        labels = self.data.source_settings().get("id2label") or {}
        names = [labels[number] for number in sorted(labels, key=int)]
        is_named = not all(name.startswith("LABEL_") for name in names)
        return names == list(self.outputs) if is_named else len(names or ("", "")) == len(self.outputs)

    def build_model(self, index: int, origin: Path | None) -> Any:
        model = super().build_model(index, origin)
        model.config.id2label = dict(enumerate(self.outputs))
        return model

    @property
    def outputs(self) -> Sequence[str]:
        """The names of what the model has an output for."""
        names = self.config.data.class_names
        if names is None:
            # Costs are asked for before the examples are read; a class more or less is nothing beside the encoder.
            names = self.data.classes() if self.data.is_prepared else ("", "")
        return names
