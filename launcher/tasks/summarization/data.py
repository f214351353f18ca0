"""The documents with summaries of a run: sequences to learn from, and held-out documents to write about."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from data_pipeline.prepare.documents import prepare_corpus
from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.sampling.summaries import SummaryRows
from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.sources.summaries import summary_corpus
from data_pipeline.summary_samples import read_samples, source_tokens
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.tasks.data import BatchShare, RunCorpus, TaskData
from launcher.tasks.sections import check_source
from launcher.tasks.summarization.config import SummarizationRun

if TYPE_CHECKING:  # brings torch
    from data_pipeline.loading.document_loader import DocumentBatches
    from longformer.evaluation.summaries import HeldOut


@dataclass(frozen=True)
class SummarizationData(TaskData[SummarizationRun]):
    """Documents and their summaries; see `launcher.tasks.data.TaskData`."""

    def corpora(self) -> list[RunCorpus]:
        return [RunCorpus(self.directory, self._prepare)]

    def _prepare(self, task_map: TaskMap | None) -> DocumentData:
        section = self.config.data
        return prepare_corpus(
            summary_corpus(section.source, section.layout),
            tokenizer=TextTokenizer.open(self.config.model.source),
            output=self.directory,
            damaged_allowed=section.damaged_allowed,
            task_map=task_map,
        )

    def batches(self, index: int, share: BatchShare, skipped: Collection[int]) -> "DocumentBatches":
        from data_pipeline.loading.document_loader import DocumentBatches

        phase, section = self.config.phases[index], self.config.data
        # Phases would otherwise see the same documents in the same order.
        seed = self.config.seed + index
        rows = SummaryRows(
            self._opened().split("train"),
            source_length=phase.sequence_length,
            target_length=section.target_length,
            begin_is_learned=self.config.model.decoder_starts_with == "end",
            seed=seed,
        )
        return DocumentBatches(
            rows,
            global_batch_size=phase.batch_size,
            micro_batch_size=share.micro_batch_size,
            rank=share.rank,
            world_size=share.world_size,
            bucket_batches=section.bucket_batches,
            seed=seed,
            workers=section.loader_workers,
            left_out=skipped,
        )

    def check(self) -> list[str]:
        check_source(self.config.model.source)
        if all(corpus.is_prepared for corpus in self.corpora()):
            return []
        TextTokenizer.open(self.config.model.source)
        summary_corpus(self.config.data.source, self.config.data.layout)
        return [f"{self.config.data.directory} does not exist yet: the data will be prepared when training starts"]

    def held_out(self, split: str, *, source_length: int, limit: int | None) -> "list[HeldOut]":
        """Returns the first `limit` documents of a split, or all, of which an encoder reads `source_length` tokens.

        Raises:
            DataError: prepared summaries are missing or damaged.
        """
        import torch

        from longformer.evaluation.summaries import HeldOut

        data = self._opened()
        special, decode = data.manifest.tokenizer.special, data.tokenizer().decode
        found = []
        for sample in islice(read_samples(data.split(split)), limit):
            tokens, global_tokens = source_tokens(sample, special, length=source_length)
            found.append(
                HeldOut(
                    identifier=decode(sample.identifier),
                    query=decode(sample.query),
                    document=decode(sample.document),
                    references=tuple(map(decode, sample.summaries)),
                    input_ids=torch.from_numpy(tokens),
                    global_tokens=global_tokens,
                    tokens=len(sample.document),
                )
            )
        return found

    def training_lengths(self, limit: int) -> dict[str, list[int]]:
        """Returns the tokens of the first `limit` documents to learn from, and of all their summaries."""
        samples = list(islice(read_samples(self._opened().split("train")), limit))
        return {
            "documents": [len(sample.document) for sample in samples],
            "summaries": [len(summary) for sample in samples for summary in sample.summaries],
        }

    def decoder(self) -> Callable[[list[int]], str]:
        """Returns what turns tokens into text without special tokens."""
        data = self._opened()
        tokenizer, special = data.tokenizer(), set(data.manifest.tokenizer.special.all)
        return lambda tokens: tokenizer.decode(token for token in tokens if token not in special)

    def tokenizer(self) -> TextTokenizer:
        """Returns the tokenizer of the prepared documents."""
        return self._opened().tokenizer()

    def _opened(self) -> DocumentData:
        return DocumentData.open(str(self.directory))
