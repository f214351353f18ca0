"""What the data of tasks shares whose labels are classes: their names, and how much each counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT
from data_pipeline.sources.labelled import LABEL
from launcher.tasks.data import InputData
from launcher.tasks.examples import LabelledData
from launcher.tasks.sections import ClassesRun
from longformer.errors import LongformerError

Config = TypeVar("Config", bound=ClassesRun)


@dataclass(frozen=True)
class ClassesData(LabelledData[Config], Generic[Config]):
    """Examples whose classes were counted while they were prepared."""

    def check(self) -> list[str]:
        notes = super().check()
        if self.is_prepared:
            self.class_weights()
        return notes

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        found = super().prepare(task_map)
        self.class_weights()
        return found

    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, none of a regression.

        Raises:
            DataError: the training examples decide, and are not prepared yet or damaged.
            LongformerError: the run file has other classes than the examples.
        """
        named = self.config.data.class_names
        if named == ():
            return ()
        counts = self._class_counts()
        if named is None:
            return tuple(counts["train"])
        if unknown := [name for found in counts.values() for name in found if name not in named]:
            raise LongformerError(
                f"{self.directory} has the label {unknown[0]!r}, which is none of data.classes ({', '.join(named)})"
            )
        return named

    def class_weights(self) -> list[float] | None:
        """Returns how much each class counts in the loss; None: all the same; errors as in `classes`.

        Raises:
            LongformerError: the run file has weights of other classes, or a class that no example has.
        """
        asked, names = self.config.data.class_weights, self.classes()
        if asked is None:
            return None
        if asked != "balanced":
            if set(asked) != set(names):
                raise LongformerError(f"data.class_weights names {list(asked)}, but the classes are {list(names)}")
            return [asked[name] for name in names]
        learned = self._class_counts()["train"]
        counts = [learned.get(name, 0) for name in names]
        if 0 in counts:
            raise LongformerError(
                f"data.class_weights is balanced, but no training example has the label {names[counts.index(0)]!r}"
            )
        return self.balanced_weights(counts)

    def balanced_weights(self, counts: Sequence[int]) -> list[float]:
        """Returns weights with which all classes count the same, given how often each occurs in training.

        Unless a task says otherwise they are scikit-learn's: labels / (classes x labels of the class).
        """
        return [sum(counts) / (len(counts) * count) for count in counts]

    def lengths(self, split: str) -> list[int]:
        """Returns how many tokens the texts of a split have, those that begin and end them included."""
        opened = PreparedData.open(self.directory).split(split)
        return [int(each) + 2 for shard in range(len(opened.shards)) for each in opened.lengths(shard, TEXT)]

    def _class_counts(self) -> Mapping[str, Mapping[str, int]]:
        """Returns how often each class occurs in each split, in the order of the classes.

        Raises:
            DataError: the examples are not prepared yet or damaged.
        """
        return PreparedData.open(self.directory).manifest.corpus.classes[LABEL]
