"""Prepared documents with their summaries, as tokens: taken apart, and put together as an encoder reads them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.shards.document_dataset import DocumentSplit
from data_pipeline.sources.corpus_types import SUMMARIES
from data_pipeline.tokenizers.tokenizer import SpecialTokens


@dataclass(frozen=True)
class SummarySample:
    """A document with its summaries; all 1-D int64, without special tokens."""

    identifier: np.ndarray
    query: np.ndarray
    document: np.ndarray
    summaries: tuple[np.ndarray, ...]


def check_summaries(split: DocumentSplit) -> None:
    """Raise DataError when a split was not prepared as documents with summaries."""
    if split.kind != SUMMARIES:
        raise DataError(f"{split.name} holds no summaries: make them with longformer data prepare summaries")


def read_sample(split: DocumentSplit, shard: int, document: int) -> SummarySample | None:
    """Return a sample, None where it is damaged and now in quarantine; errors as in `DocumentSplit.read`."""
    tokens = split.read(shard, document, 0, int(split.lengths(shard)[document]))
    if tokens is None:
        return None
    ends = np.flatnonzero(tokens == split.tokenizer.special.end)
    # No text holds an end token of its own, so these are the borders.
    starts, stops = [0, *(ends + 1)], [*ends, len(tokens)]
    texts = [tokens[start:stop].astype(np.int64) for start, stop in zip(starts, stops, strict=True)]
    identifier, query, document_text, *summaries = texts
    return SummarySample(identifier, query, document_text, tuple(summaries))


def read_samples(split: DocumentSplit) -> Iterator[SummarySample]:
    """Yield all samples of a split in the order of its shards, without the damaged ones."""
    check_summaries(split)
    for shard in range(len(split.shards)):
        for document in range(len(split.lengths(shard))):
            sample = read_sample(split, shard, document)
            if sample is not None:
                yield sample


def source_tokens(sample: SummarySample, special: SpecialTokens, *, length: int) -> tuple[np.ndarray, int]:
    """Return what an encoder reads of a sample, and how many of its first tokens attend globally.

    It reads `<s> document </s>` with a global first token; where there is a query, `<s> query </s> </s> document </s>`,
    as the tokenizer writes pairs, with the query global too. The document's end is left out where it is too long; of
    the query at most half of `length` is read.
    """
    begin, end = [special.begin], [special.end]
    front = begin
    if len(sample.query):
        front = np.concatenate([begin, sample.query[: length // 2 - 3], end, end]).tolist()
    tokens = np.concatenate([front, sample.document[: length - len(front) - 1], end]).astype(np.int64)
    return tokens, max(1, len(front) - 2)
