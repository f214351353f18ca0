"""What a task says of its data, and what follows for every task: preparing, checking and counting it.

Nothing here imports torch: a run file is checked without it.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.base import Sequences, check_enough
from data_pipeline.shards.manifest import is_prepared
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import Corpus
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.config.run_config import RunConfig
from launcher.tasks.sections import PretrainedRun, check_source
from longformer.errors import LongformerError
from longformer.interop.model_folder import read_config
from longformer.interop.tokenizer import tokenizer_content

if TYPE_CHECKING:  # brings torch
    from data_pipeline.loading.batches import Batches

Config = TypeVar("Config", bound=RunConfig)
PretrainedConfig = TypeVar("PretrainedConfig", bound=PretrainedRun)


@dataclass(frozen=True)
class InputData:
    """What a run learns from, prepared."""

    directory: Path
    fingerprint: str
    """Equal exactly when the content is equal."""


@dataclass(frozen=True)
class RunCorpus:
    """One corpus of a run."""

    directory: Path
    """Where its prepared form lies, or will lie."""
    corpus: Callable[[], Corpus]
    """Finds its files; raises DataError where there are none."""
    tokenizer: Path | None
    """Where its tokenizer lies; None: it brings its own, of characters."""
    damaged_allowed: int = 0
    """So many examples may be unreadable."""
    special_tokens: tuple[str, ...] | None = None
    """Special tokens that stand for themselves in documents; None: those that the tokenizer's folder names."""

    @property
    def is_prepared(self) -> bool:
        """Whether that was done."""
        return is_prepared(self.directory)

    def prepare(self, task_map: TaskMap | None) -> PreparedData:
        """Makes it ready, or finds it unchanged; arguments and errors as in `data_pipeline.prepare.prepare`."""
        return prepare(
            self.corpus(),
            output=self.directory,
            tokenizer=None if self.tokenizer is None else self.opened_tokenizer(),
            damaged_allowed=self.damaged_allowed,
            # Characters are read, not tokenised: there is no work to hand out.
            task_map=None if self.tokenizer is None else task_map,
        )

    def opened_tokenizer(self) -> TextTokenizer:
        """Returns its tokenizer.

        Raises:
            LongformerError, DataError: there is none, or it is not one that can be used.
        """
        assert self.tokenizer is not None, "it brings its own"
        return open_tokenizer(self.tokenizer, self.special_tokens)

    def open(self) -> PreparedData:
        """Returns what was prepared.

        Raises:
            DataError: nothing was, or it is damaged.
        """
        return PreparedData.open(self.directory)


@dataclass(frozen=True)
class BatchShare:
    """Which part of every global batch a rank gets."""

    rank: int
    world_size: int
    micro_batch_size: int


@dataclass(frozen=True)
class TaskData(ABC, Generic[Config]):
    """The data of one run. Made from the run file alone, anywhere and at no cost; holds nothing that changes."""

    config: Config
    directory: Path
    """Of the prepared data: as in the run file, or where a run found it when it was created."""

    @abstractmethod
    def corpora(self) -> list[RunCorpus]:
        """Returns the corpora that the run learns from."""

    @abstractmethod
    def sequences(self, index: int) -> Sequences:
        """Returns the endless training sequences of a phase.

        Raises:
            DataError: prepared data is missing or damaged.
        """

    @property
    def bucket_batches(self) -> int:
        """Sequences of so many global batches are gathered by length."""
        return 1

    def batches(self, index: int, share: BatchShare, skipped: Collection[int]) -> "Batches":
        """Returns a rank's batches of a phase.

        Args:
            index: of the phase.
            share: the rank's part.
            skipped: positions in the phase's order where global batches begin that are not to be trained on.
        """
        from data_pipeline.loading.batches import Batches

        return Batches(
            self.sequences(index),
            global_batch_size=self.config.phases[index].batch_size,
            micro_batch_size=share.micro_batch_size,
            rank=share.rank,
            world_size=share.world_size,
            bucket_batches=self.bucket_batches,
            seed=self.seed(index),
            workers=self.config.data.loader_workers,
            skipped=skipped,
        )

    def seed(self, index: int) -> int:
        """Returns the seed of a phase's order: phases of equal length would otherwise see the same order."""
        return self.config.seed + index

    def check(self) -> list[str]:
        """Returns notes on what is unusual but allowed in the world around the run file.

        Unless a task says otherwise: where the data is prepared, it holds a batch for every phase; where it is not,
        its sources and tokenizers are there.

        Raises:
            LongformerError, DataError: the run cannot start.
        """
        missing = [each for each in self.corpora() if not each.is_prepared]
        for each in missing:
            each.corpus()
            if each.tokenizer is not None:
                self.check_tokenizer(each)
        if not missing:
            for index, phase in enumerate(self.config.phases):
                check_enough(self.sequences(index), global_batch_size=phase.batch_size)
        return [f"{each.directory} does not exist yet: it will be prepared when training starts" for each in missing]

    def check_tokenizer(self, corpus: RunCorpus) -> None:
        """Checks the tokenizer of a corpus that is not prepared yet.

        Raises:
            LongformerError, DataError: it is missing, damaged, or not one for the model.
        """
        corpus.opened_tokenizer()

    def in_steps(self) -> Config:
        """Returns the config with everything in steps that the run file gives in epochs, from the prepared data.

        Raises:
            LongformerError: the data that this depends on is not prepared yet, or a warm-up is longer than its phase.
            DataError: prepared data is damaged.
        """
        counting = [index for index, phase in enumerate(self.config.phases) if phase.counts_epochs]
        if not counting:
            return self.config
        if not self.is_prepared:
            raise LongformerError(
                f"phases[{counting[0]}] counts epochs: how many steps they are is known once the data is prepared, "
                "which training does first"
            )
        phases = [
            phase.in_steps(self.sequences(index).per_epoch) if phase.counts_epochs else phase
            for index, phase in enumerate(self.config.phases)
        ]
        return self.config.model_copy(update={"phases": tuple(phases)})

    @property
    def is_prepared(self) -> bool:
        """Whether all corpora have been made ready."""
        return all(each.is_prepared for each in self.corpora())

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        """Makes all corpora ready, or finds them unchanged.

        Args:
            task_map: where the work is done; None: on this machine.

        Raises:
            DataError: a source is missing or damaged, or something else lies where the data should be.
        """
        return InputData(self.directory, _joined([each.prepare(task_map).fingerprint for each in self.corpora()]))

    def fingerprint(self) -> str:
        """Returns the fingerprint of the prepared data as it lies there now.

        Raises:
            DataError: it is missing or damaged.
        """
        return _joined([each.open().fingerprint for each in self.corpora()])

    def training_shards(self) -> int | None:
        """Returns how many shards there are to learn from; None until they are prepared."""
        if not self.is_prepared:
            return None
        return sum(len(each.open().manifest.splits["train"]) for each in self.corpora())


@dataclass(frozen=True)
class PretrainedData(TaskData[PretrainedConfig], Generic[PretrainedConfig]):
    """The data of a run whose model is made of `model.source`."""

    def check(self) -> list[str]:
        check_source(self.config.model.source)
        return super().check()

    def check_tokenizer(self, corpus: RunCorpus) -> None:
        size = corpus.opened_tokenizer().vocabulary_size
        known = read_config(self.config.model.source).get("vocab_size", 0)
        if size > known:
            raise LongformerError(
                f"the tokenizer {corpus.tokenizer} has {size:,} tokens, but the model knows only {known:,}; give the "
                "model's own tokenizer"
            )


def open_tokenizer(path: Path, special_tokens: Sequence[str] | None = None) -> TextTokenizer:
    """Returns the tokenizer of a folder or a tokenizer.json, the same for training and in use.

    Arguments and errors as in `longformer.interop.tokenizer.tokenizer_content`.
    """
    return TextTokenizer(tokenizer_content(path, special_tokens))


def _joined(fingerprints: list[str]) -> str:
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest()
