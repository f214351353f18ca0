"""The text that a character run learns, prepared; and what can be known of it before the run starts."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.sampling.text import StreamSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream
from data_pipeline.sources.characters import characters
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.data import RunCorpus, TaskData
from longformer.errors import LongformerError

_LARGEST_VOCABULARY = 256
"""Assumed until the data is prepared; a smaller vocabulary changes memory and FLOPs by less than a percent."""


@dataclass(frozen=True)
class CharacterData(TaskData[CharacterRun]):
    """One text, cut into sequences; see `launcher.tasks.data.TaskData`."""

    def corpora(self) -> list[RunCorpus]:
        section = self.config.data
        corpus = partial(characters, section.recipe, section.source, limit_bytes=section.limit_bytes)
        return [RunCorpus(self.directory, corpus, tokenizer=None)]

    def sequences(self, index: int) -> StreamSequences:
        return StreamSequences(
            PreparedData.open(self.directory).split("train"),
            sequence_length=self.config.phases[index].sequence_length,
            seed=self.seed(index),
        )

    def split(self, name: str) -> TokenStream:
        """Returns the tokens of train, validation or test."""
        return TokenStream(PreparedData.open(self.directory).split(name))

    def text(self, split: str, limit: int | None = None) -> np.ndarray:
        """Returns the first `limit` tokens of a split, or all of them."""
        stream = self.split(split)
        return stream.read(0, min(len(stream), limit or len(stream)))

    @property
    def symbols(self) -> bytes | None:
        """The byte that each token stands for; None until the data is prepared."""
        return PreparedData.open(self.directory).vocabulary.symbols if self.is_prepared else None

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; the largest possible one until the data is prepared."""
        return len(self.symbols or bytes(_LARGEST_VOCABULARY))

    def check(self) -> list[str]:
        self._check_source()
        if self.config.init is not None:
            self.described(self.config.init)  # refuses what is not there; the model is looked at when the run starts
        notes = [*self.check_corpora(), *self._long_windows()]
        if self.is_prepared:
            data = PreparedData.open(self.directory)
            self._check_samples(data)
            notes += self._short_text(data)
        return notes

    def _check_source(self) -> None:
        source = self.config.data.source
        if source is None:
            return
        if not source.exists():
            raise LongformerError(
                f"data.source {source} does not exist (working directory: {Path.cwd()}); name the file or folder "
                f"with data.source=path/to/{source.name}"
            )
        if source.is_file() and source.stat().st_size == 0:
            raise LongformerError(f"data.source {source} is empty; name another file")

    def _check_samples(self, data: PreparedData) -> None:
        tokens = data.tokens("train")
        for index, phase in enumerate(self.config.phases):
            samples = (tokens - 1) // phase.sequence_length
            if samples < phase.batch_size:
                longest = (tokens - 1) // phase.batch_size
                remedies = [f"at least {phase.batch_size * phase.sequence_length + 1:,} characters"]
                remedies += [f"sequences of at most {longest:,}"] * (longest > 0)
                remedies += [f"a batch of at most {samples:,}"] * (samples > 0)
                raise LongformerError(
                    f"phases[{index}]: the training text of {tokens:,} characters gives {samples:,} sequences of "
                    f"{phase.sequence_length:,}, less than one batch of {phase.batch_size}; use "
                    f"{' or '.join(remedies)}"
                )

    def _short_text(self, data: PreparedData) -> list[str]:
        length = self.config.evaluation.sequence_length
        return [
            f"the {name} text of {data.tokens(name):,} characters is shorter than evaluation.sequence_length "
            f"({length:,}): no character is scored with full context"
            for name in data.manifest.splits
            if name != "train" and data.tokens(name) < length
        ]

    def _long_windows(self) -> list[str]:
        return [
            f"phases[{index}]: the longest window ({max(phase.windows):,}) is longer than the sequences "
            f"({phase.sequence_length:,})"
            for index, phase in enumerate(self.config.phases)
            if max(phase.windows) > phase.sequence_length
        ]
