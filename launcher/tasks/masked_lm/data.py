"""The documents of a masked-LM run: training sequences of the mix, and held-out text with fixed masks."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.held_out import masked_documents
from data_pipeline.prepare.documents import prepare_documents
from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.sampling.masking import Masking
from data_pipeline.sampling.sequences import MixedRows, PackedRows, Rows, check_enough
from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.sources.corpus import find_corpus_files
from data_pipeline.tokenizers.subword import SpecialTokens, TextTokenizer
from launcher.tasks.data import BatchShare, RunCorpus, TaskData
from launcher.tasks.masked_lm.config import CorpusSection, MaskedLMRun
from launcher.tasks.sections import check_source
from longformer.errors import LongformerError

if TYPE_CHECKING:  # brings torch
    from data_pipeline.loading.document_loader import DocumentBatches

HELD_OUT_SEED = 0
"""Of the masks of held-out text: the same for all runs, so that their scores compare."""


@dataclass(frozen=True)
class MaskedLMData(TaskData[MaskedLMRun]):
    """Documents of several corpora, packed and mixed by weight; see `launcher.tasks.data.TaskData`."""

    def corpora(self) -> list[RunCorpus]:
        return [
            RunCorpus(self.directory / corpus.name, partial(self._prepare, corpus))
            for corpus in self.config.data.sources
        ]

    def _prepare(self, corpus: CorpusSection, task_map: TaskMap | None) -> DocumentData:
        return prepare_documents(
            source=corpus.path,
            tokenizer=TextTokenizer.open(self.config.tokenizer_path),
            output=self.directory / corpus.name,
            field=corpus.field,
            damaged_allowed=corpus.damaged_allowed,
            task_map=task_map,
        )

    def batches(self, index: int, share: BatchShare, skipped: Collection[int]) -> "DocumentBatches":
        from data_pipeline.loading.document_loader import DocumentBatches

        rows = self._rows(index)
        return DocumentBatches(
            rows,
            global_batch_size=self.config.phases[index].batch_size,
            micro_batch_size=share.micro_batch_size,
            rank=share.rank,
            world_size=share.world_size,
            masking=Masking(rows.tokenizer, seed=self.config.seed + index, chosen=self.config.data.masked),
            workers=self.config.data.loader_workers,
            left_out=skipped,
        )

    def opened(self) -> dict[str, DocumentData]:
        """Returns the prepared documents of each corpus by its name."""
        return {
            corpus.name: DocumentData.open(str(self.directory / corpus.name)) for corpus in self.config.data.sources
        }

    def tokenizer(self) -> TextTokenizer:
        """Returns the tokenizer of the prepared documents."""
        return next(iter(self.opened().values())).tokenizer()

    def document_lengths(self, *, shards: int) -> dict[str, list[int]]:
        """Returns the tokens of the training documents of each corpus, of its first shards only."""
        splits = {name: prepared.split("train") for name, prepared in self.opened().items()}
        return {
            name: [int(tokens) for shard in range(min(shards, len(split.shards))) for tokens in split.lengths(shard)]
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
            masked_documents(
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
        return next(iter(self.opened().values())).manifest.tokenizer.special

    def check(self) -> list[str]:
        source, tokenizer_path = self.config.model.source, self.config.tokenizer_path
        check_source(source)
        missing = [
            corpus
            for corpus, prepared in zip(self.config.data.sources, self.corpora(), strict=True)
            if not prepared.is_prepared
        ]
        for corpus in missing:
            find_corpus_files(corpus.path)
        if not missing:
            for index, phase in enumerate(self.config.phases):
                check_enough(self._rows(index), global_batch_size=phase.batch_size)
            return []
        tokenizer = TextTokenizer.open(tokenizer_path)
        known = json.loads((source / "config.json").read_text()).get("vocab_size", 0)
        if tokenizer.vocabulary_size > known:
            raise LongformerError(
                f"the tokenizer {tokenizer_path} has {tokenizer.vocabulary_size:,} tokens, but the model knows only "
                f"{known:,}; give the model's own tokenizer"
            )
        return [f"{', '.join(corpus.name for corpus in missing)} will be prepared when training starts"]

    def _rows(self, index: int) -> Rows:
        """Returns the endless sequences of a phase: the documents of each corpus packed, the corpora mixed."""
        # Phases of equal length would otherwise see the same sequences in the same order.
        seed = self.config.seed + index
        length = self.config.phases[index].sequence_length
        opened = self.opened()
        weighted: list[tuple[Rows, float]] = [
            (PackedRows(opened[corpus.name].split("train"), sequence_length=length, seed=seed), corpus.weight)
            for corpus in self.config.data.sources
        ]
        return weighted[0][0] if len(weighted) == 1 else MixedRows(weighted, seed=seed)
