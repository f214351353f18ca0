"""A prepared data set as the rest of the system sees it: manifest, vocabulary and three token streams."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.stream_manifest import Manifest
from data_pipeline.shards.stream_reader import TokenStream
from data_pipeline.tokenizers.byte import Vocabulary


@dataclass(frozen=True)
class PreparedData:
    """A directory that `prepare` has written. Opening reads the manifest only."""

    directory: Path
    manifest: Manifest

    @classmethod
    def open(cls, directory: Path) -> "PreparedData":
        """Open prepared data.

        Raises:
            DataError: `directory` holds none, or its manifest is damaged.
        """
        return cls(directory, Manifest.load(directory))

    @property
    def fingerprint(self) -> str:
        """The content address of vocabulary and tokens (SHA-256, hexadecimal)."""
        return self.manifest.fingerprint

    @property
    def vocabulary(self) -> Vocabulary:
        """The table between text and token ids; the same as in vocabulary.json."""
        return Vocabulary(bytes(self.manifest.vocabulary))

    def split(self, name: str) -> TokenStream:
        """Return the tokens of "train", "validation" or "test".

        Raises:
            ValueError: there is no such split.
            DataError: index or a shard is missing or damaged.
        """
        if name not in self.manifest.splits:
            raise ValueError(f"no split {name!r}: choose one of {', '.join(self.manifest.splits)}")
        return TokenStream(
            self.directory,
            name,
            self.manifest.splits[name],
            token_type=np.dtype(self.manifest.token_type),
            fingerprint=self.fingerprint,
        )

    @property
    def samples(self) -> int:
        """Members of all tar shards."""
        return sum(split.samples for split in self.manifest.splits.values())

    def find_damage(self) -> list[str]:
        """Read everything against its checksum; return one sentence for every damage, none when all is well."""
        damages = []
        try:
            if Vocabulary.load(self.directory / "vocabulary.json") != self.vocabulary:
                damages.append(f"{self.directory / 'vocabulary.json'} is not the vocabulary of the manifest")
        except DataError as error:
            damages.append(str(error))
        for name in self.manifest.splits:
            try:
                damages += self.split(name).damaged_members()
            except DataError as error:
                damages.append(str(error))
        return damages
