"""What the data of tasks shares that learn from texts with a label: the order of training, and held-out texts whole."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Generic, TypeVar

from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import SPLITS, Corpus
from launcher.tasks.data import InputData, PretrainedData, RunCorpus
from launcher.tasks.sections import LabelledRun

Config = TypeVar("Config", bound=LabelledRun)


@dataclass(frozen=True)
class LabelledData(PretrainedData[Config], Generic[Config]):
    """Texts with labels."""

    is_words: ClassVar[bool] = False
    """Whether its texts are words, which the tokenizer is given one by one."""

    @abstractmethod
    def corpus(self) -> Corpus:
        """Finds the files of the run file's source; raises DataError where there are none."""

    def corpora(self) -> list[RunCorpus]:
        section = self.config.data
        return [
            RunCorpus(
                self.directory,
                self.corpus,
                self.tokenizer_folder,
                section.damaged_allowed,
                section.special_tokens,
                is_words=self.is_words,
                added_tokens=self.added_tokens,
            )
        ]

    @abstractmethod
    def labelled(self, split: str, length: int, seed: int) -> LabelledSequences:
        """Returns the examples of a split in sequences of at most `length` tokens.

        Raises:
            DataError: prepared data is missing or damaged.
        """

    def check(self) -> list[str]:
        notes = super().check()
        if self.is_prepared:
            self._check_room()
        return notes

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        found = super().prepare(task_map)
        self._check_room()
        return found

    def sequences(self, index: int) -> LabelledSequences:
        return self.labelled("train", self.config.phases[index].sequence_length, self.seed(index))

    def whole(self, split: str, limit: int | None) -> Iterator[NamedArrays]:
        """Yields the first `limit` examples of a split, or all, with all of their tokens.

        Raises:
            DataError: prepared data is missing or damaged, or has a label that is none of the known ones.
        """
        sequences = self.labelled(split, self.config.phases[-1].sequence_length, seed=0)
        shards = enumerate(PreparedData.open(self.directory).split(split).shards)
        examples = (sequences.whole(shard, number) for shard, record in shards for number in range(record.examples))
        return islice(examples, limit)

    @property
    def bucket_batches(self) -> int:
        return self.config.data.bucket_batches

    def decoder(self) -> Callable[[Iterable[int]], str]:
        """Returns what turns token ids without special ones into their text."""
        return PreparedData.open(self.directory).tokenizer.decode

    def _check_room(self) -> None:
        shortest = min(phase.sequence_length for phase in self.config.phases)
        for split in SPLITS:
            self.labelled(split, shortest, seed=0).check_room()
