"""The documents with summaries of a run: sequences to learn from, and held-out documents to write about."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from data_pipeline.sampling.summaries import SummaryExample, SummaryFormat, SummarySequences, source_tokens
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.summaries import summaries
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.tasks.data import PretrainedData, RunCorpus
from launcher.tasks.summarization.config import SummarizationRun
from longformer.errors import LongformerError
from longformer.inference.queries import longest_query
from longformer.interop.model_folder import read_config
from longformer.interop.sources import ENCODER_DECODERS, decoder_length

if TYPE_CHECKING:  # brings torch
    from longformer.evaluation.summaries import HeldOutDocument


@dataclass(frozen=True)
class SummarizationData(PretrainedData[SummarizationRun]):
    """Documents and their summaries; see `launcher.tasks.data.TaskData`."""

    families: ClassVar[Collection[str]] = tuple(ENCODER_DECODERS)
    trained: ClassVar[Collection[str]] = ("led", "longformer-led")

    def check(self) -> list[str]:
        notes, longest = super().check(), self.long_shape(self.source_settings())["max_length"]
        judged = self.config.phases[-1].sequence_length
        if self.config.init is None and judged < longest:
            notes.append(
                f"the last phase reads {judged:,} of the {longest:,} tokens that the model reads: longer documents are "
                "cut there when summaries are judged, while the exported model reads on"
            )
        return notes

    def check_conversion(self, settings: Mapping[str, Any]) -> None:
        super().check_conversion(settings)
        self._check_decoder(settings)

    def check_start(self, model: Path) -> None:
        super().check_start(model)
        self._check_decoder(read_config(model))

    def _check_decoder(self, settings: Mapping[str, Any]) -> None:
        positions = decoder_length(settings)
        if positions is None:
            return
        learned, written = self.config.data.target_length, self.config.evaluation.max_length
        # What is written last is never read.
        for key, value, most in (
            ("data.target_length", learned, positions),
            ("evaluation.max_length", written, positions + 1),
        ):
            if value > most:
                raise LongformerError(
                    f"{key} is {value:,}, but the decoder of the model has {positions:,} positions: choose at most "
                    f"{most:,}"
                )

    def corpora(self) -> list[RunCorpus]:
        section = self.config.data
        return [
            RunCorpus(
                self.directory,
                partial(summaries, section.source, section.layout, encoding=section.encoding),
                tokenizer=self.tokenizer_folder,
                damaged_allowed=section.damaged_allowed,
                special_tokens=section.special_tokens,
            )
        ]

    def sequences(self, index: int) -> SummarySequences:
        data, length = self._opened(), self.config.phases[index].sequence_length
        return SummarySequences(
            data.split("train"),
            form=self.form(data.tokenizer),
            source_length=length,
            query_length=longest_query(length),
            target_length=self.config.data.target_length,
            seed=self.seed(index),
        )

    def form(self, tokenizer: TextTokenizer) -> SummaryFormat:
        """Returns how the model reads documents and writes summaries with a tokenizer."""
        return SummaryFormat.of(tokenizer, begin_is_learned=self.config.model.decoder_starts_with == "end")

    @property
    def bucket_batches(self) -> int:
        return self.config.data.bucket_batches

    def held_out(self, split: str, *, source_length: int, limit: int | None) -> "list[HeldOutDocument]":
        """Returns the first `limit` documents of a split, or all, of which an encoder reads `source_length` tokens.

        Raises:
            DataError: prepared summaries are missing or damaged.
        """
        import torch

        from longformer.evaluation.summaries import HeldOutDocument

        data = self._opened()
        around, decode = data.tokenizer.format, data.tokenizer.decode
        found = []
        for example in islice(self._examples(split), limit):
            tokens, global_tokens = source_tokens(
                example.document,
                example.query,
                around,
                length=source_length,
                query_length=longest_query(source_length),
            )
            found.append(
                HeldOutDocument(
                    identifier=example.identifier,
                    query=decode(example.query),
                    document=decode(example.document),
                    references=tuple(map(decode, example.summaries)),
                    input_ids=torch.from_numpy(tokens),
                    global_tokens=global_tokens,
                    tokens=len(example.document),
                )
            )
        return found

    def training_lengths(self, limit: int) -> dict[str, list[int]]:
        """Returns the tokens of the first `limit` documents to learn from, and of all their summaries."""
        examples = list(islice(self._examples("train"), limit))
        return {
            "documents": [len(example.document) for example in examples],
            "summaries": [len(summary) for example in examples for summary in example.summaries],
        }

    def decoder(self) -> Callable[[list[int]], str]:
        """Returns what turns tokens into text without special tokens."""
        data = self._opened()
        tokenizer, special = data.tokenizer, set(data.manifest.tokenizer.special_tokens.all)
        return lambda tokens: tokenizer.decode(token for token in tokens if token not in special)

    def encoder(self) -> Callable[[str], list[int]]:
        """Returns what turns text into tokens, nothing added."""
        tokenizer = self._opened().tokenizer
        return lambda text: next(tokenizer.encode_batch([text])).tolist()

    def tokenizer(self) -> TextTokenizer:
        """Returns the tokenizer of the prepared documents."""
        return self._opened().tokenizer

    def _examples(self, split: str) -> Iterator[SummaryExample]:
        return map(SummaryExample.of, self._opened().split(split).examples())

    def _opened(self) -> PreparedData:
        return PreparedData.open(self.directory)
