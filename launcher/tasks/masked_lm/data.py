"""The documents of a masked-LM run: training sequences of the mix, and held-out text with fixed masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.sampling.base import Sequences
from data_pipeline.sampling.masking import MaskedSequences, Masking, masked_examples
from data_pipeline.sampling.mixed import MixedSequences
from data_pipeline.sampling.text import PackedSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT
from data_pipeline.sources.documents import documents
from data_pipeline.tokenizers.subword import TextTokenizer
from data_pipeline.tokenizers.tokenizer import SpecialTokens
from launcher.tasks.data import PretrainedData, RunCorpus
from launcher.tasks.masked_lm.config import MaskedLMRun
from launcher.tracking.registry.open_model import is_registered
from longformer.errors import LongformerError
from longformer.interop.model_folder import read_config, weight_names
from longformer.interop.sources import heads_of, source_length

HELD_OUT_SEED = 0
"""Of the masks of held-out text: the same for all runs, so that their scores compare."""


@dataclass(frozen=True)
class MaskedLMData(PretrainedData[MaskedLMRun]):
    """Documents of several corpora, packed and mixed by weight; see `launcher.tasks.data.TaskData`."""

    def check(self) -> list[str]:
        notes, source, init = super().check(), self.config.model.source, self.config.init
        key, name = ("model.source", str(source)) if init is None else ("init:", init)
        if is_registered(name):
            return notes  # its weights are fetched when the run starts
        folder = self.described(name).folder
        heads = [theirs for theirs, ours in heads_of(read_config(folder)).items() if ours.startswith("lm_head")]
        names = weight_names(folder)
        if not any(f"{head}.".encode() in names for head in heads):
            notes.append(
                f"{key} {name} has no pretrained head for masked words, as sentence encoders have none: training "
                "starts with a fresh one, and with the loss of a guess"
            )
        return notes

    @property
    def tokenizer_name(self) -> Path:
        return self.config.data.tokenizer or self.config.model.source

    def check_conversion(self, settings: Mapping[str, Any]) -> None:
        super().check_conversion(settings)
        section, length = self.config.model, source_length(settings)
        # A long source may tell which of its rows are new; that is looked at when the run starts.
        has_new_rows = self.long_shape(settings)["max_length"] > length or settings["model_type"] in self.trained
        if section.freeze_pretrained and not has_new_rows:
            raise LongformerError(
                f"model.source {section.source}: freeze_pretrained leaves nothing to train: the source reads {length} "
                "tokens already"
            )

    def corpora(self) -> list[RunCorpus]:
        return [
            RunCorpus(
                self.directory / corpus.name,
                partial(documents, corpus.path, field=corpus.field, encoding=corpus.encoding, read_as=corpus.read_as),
                tokenizer=self.tokenizer_folder,
                damaged_allowed=corpus.damaged_allowed,
                special_tokens=self.config.data.special_tokens,
            )
            for corpus in self.config.data.sources
        ]

    def sequences(self, index: int) -> MaskedSequences:
        """Returns the documents of each corpus packed, the corpora mixed by weight, and some tokens hidden."""
        seed, length = self.seed(index), self.config.phases[index].sequence_length
        opened = self.opened()
        apart = not self.config.data.cross_document_attention
        weighted: list[tuple[Sequences, float]] = [
            (
                PackedSequences(
                    opened[corpus.name].split("train"), sequence_length=length, seed=seed, tell_documents=apart
                ),
                corpus.weight,
            )
            for corpus in self.config.data.sources
        ]
        mixed = weighted[0][0] if len(weighted) == 1 else MixedSequences(weighted, seed=seed)
        return MaskedSequences(mixed, Masking(mixed.tokenizer, seed=seed, chosen=self.config.data.masked))

    def opened(self) -> dict[str, PreparedData]:
        """Returns the prepared documents of each corpus by its name."""
        return {corpus.name: PreparedData.open(self.directory / corpus.name) for corpus in self.config.data.sources}

    def tokenizer(self) -> TextTokenizer:
        """Returns the tokenizer of the prepared documents."""
        return next(iter(self.opened().values())).tokenizer

    def document_lengths(self, *, shards: int) -> dict[str, list[int]]:
        """Returns the tokens of the training documents of each corpus, of its first shards only."""
        splits = {name: prepared.split("train") for name, prepared in self.opened().items()}
        return {
            name: [
                int(tokens) for shard in range(min(shards, len(split.shards))) for tokens in split.lengths(shard, TEXT)
            ]
            for name, split in splits.items()
        }

    def held_out(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a split's documents, of each corpus its share of `evaluation.limit_tokens`, as one text.

        Returns:
            What a model sees, and what was hidden; both (tokens,) int64.

        Raises:
            DataError: prepared documents are missing or damaged.
        """
        total = sum(corpus.weight for corpus in self.config.data.sources)
        limit = self.config.evaluation.limit_tokens
        opened = self.opened()
        pieces = [
            masked_examples(
                opened[corpus.name].split(split),
                chosen=self.config.data.masked,
                seed=HELD_OUT_SEED,
                limit=None if limit is None else max(1, round(limit * corpus.weight / total)),
            )
            for corpus in self.config.data.sources
        ]
        tokens, labels = (np.concatenate(each) for each in zip(*pieces, strict=True))
        return tokens, labels

    @property
    def special_tokens(self) -> SpecialTokens:
        """The special tokens of the prepared documents."""
        return next(iter(self.opened().values())).manifest.tokenizer.special_tokens
