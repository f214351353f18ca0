"""What a task says of its data, and what follows for every task: preparing, checking and counting it.

Nothing here imports torch: a run file is checked without it.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.shards.document_dataset import DocumentData, open_prepared
from data_pipeline.shards.stream_dataset import PreparedData
from data_pipeline.shards.stream_manifest import is_prepared
from launcher.config.run_config import RunConfig

if TYPE_CHECKING:  # brings torch
    from longformer.training.objectives import BatchSource

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class InputData:
    """What a run learns from, prepared."""

    directory: Path
    fingerprint: str
    """Equal exactly when the content is equal."""


@dataclass(frozen=True)
class TrainingText:
    """How much there is to learn from."""

    tokens: int
    shards: int


@dataclass(frozen=True)
class RunCorpus:
    """One corpus of a run."""

    directory: Path
    """Where its prepared form lies, or will lie."""
    prepare: Callable[[TaskMap | None], PreparedData | DocumentData]
    """Makes it ready, or finds it unchanged."""

    @property
    def is_prepared(self) -> bool:
        """Whether that was done."""
        return is_prepared(self.directory)


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
    def batches(self, index: int, share: BatchShare, skipped: Collection[int]) -> "BatchSource":
        """Returns a rank's batches of a phase.

        Args:
            index: of the phase.
            share: the rank's part.
            skipped: positions in the phase's order where global batches begin that are not to be trained on.
        """

    @abstractmethod
    def check(self) -> list[str]:
        """Returns notes on what is unusual but allowed in the world around the run file.

        Raises:
            LongformerError, DataError: the run cannot start.
        """

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
        return _joined([open_prepared(str(each.directory)).fingerprint for each in self.corpora()])

    def training_text(self) -> TrainingText | None:
        """Returns how much there is to learn from; None until it is prepared."""
        corpora = self.corpora()
        if not all(each.is_prepared for each in corpora):
            return None
        tokens = shards = 0
        for each in corpora:
            prepared = open_prepared(str(each.directory))
            if isinstance(prepared, PreparedData):
                tokens += prepared.manifest.splits["train"].tokens
                shards += len(prepared.manifest.splits["train"].shards)
            else:
                tokens += sum(shard.tokens for shard in prepared.manifest.splits["train"])
                shards += len(prepared.manifest.splits["train"])
        return TrainingText(tokens, shards)


def _joined(fingerprints: list[str]) -> str:
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest()
