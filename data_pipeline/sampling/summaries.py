"""Rows for learning to summarize: what the encoder reads and what is to be written, functions of the position."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.sequences import Row, digest
from data_pipeline.sampling.shuffle import DocumentLine
from data_pipeline.shards.document_dataset import DocumentSplit
from data_pipeline.summary_samples import check_summaries, read_sample, source_tokens

_SHORTEST = 16


@dataclass(frozen=True)
class SummaryRow(Row):
    """What the encoder reads, and beside it what the decoder is to write."""

    global_tokens: int
    """So many tokens at the beginning attend to all others and are seen by all."""
    labels: np.ndarray
    """(target length,) int64."""

    def columns(self) -> dict[str, np.ndarray]:
        """Return input_ids, attention_mask and global_attention_mask, all (length,), and labels (target length,)."""
        is_global = np.arange(len(self.tokens)) < self.global_tokens
        return {
            "input_ids": self.tokens,
            "attention_mask": self.documents,
            "global_attention_mask": is_global.astype(np.int64),
            "labels": self.labels,
        }


class SummaryRows:
    """One document per row, and one of its summaries: another one in every epoch where it has several.

    What the encoder reads is that of `source_tokens`; of a summary that is too long the beginning is learned.

    Args:
        source_length: tokens that the encoder reads at most, special ones included.
        target_length: tokens that are learned at most, special ones included.
        begin_is_learned: the two conventions of teacher forcing (spec section 6). True: labels are
            `<s> summary </s>`, and the decoder starts with `</s>`, as in Hugging Face. False: labels are
            `summary </s>`, and the decoder starts with `<s>`, as in the Longformer authors' code. The model has to be
            told the same by its `decoder_start_token_id`.

    Raises:
        ValueError: a length leaves no room for text.
        DataError: the split was not prepared as documents with summaries.
    """

    def __init__(
        self, split: DocumentSplit, *, source_length: int, target_length: int, begin_is_learned: bool = True, seed: int
    ) -> None:
        for name, length in (("source_length", source_length), ("target_length", target_length)):
            if length < _SHORTEST:
                raise ValueError(f"{name} must be at least {_SHORTEST}, got {length}")
        check_summaries(split)
        self.tokenizer = split.tokenizer
        self.name = split.name
        self.fingerprint = digest(
            "summaries", split.fingerprint, split.open_shards, source_length, target_length, begin_is_learned, seed
        )
        self._split = split
        self._source_length = source_length
        self._target_length = target_length
        self._begin_is_learned = begin_is_learned
        self._line = DocumentLine(split, seed, by_document=True)
        self.per_epoch = self._line.length

    def row(self, position: int) -> SummaryRow:
        """Return the row; of a damaged document it is an empty one, and nothing is learned from it."""
        (piece,) = self._line.pieces(position, position + 1)
        sample = read_sample(self._split, piece.shard, piece.document)
        special = self.tokenizer.special
        if sample is None:
            return _row(np.array([special.begin, special.end]), 1, np.array([IGNORED]))
        summary = sample.summaries[position // self.per_epoch % len(sample.summaries)]
        begin = [special.begin] if self._begin_is_learned else []
        text = summary[: self._target_length - 1 - len(begin)]
        labels = np.concatenate([begin, text, [special.end]]).astype(np.int64)
        return _row(*source_tokens(sample, special, length=self._source_length), labels)

    def row_length(self, position: int) -> int:
        """Return how long the row is, near enough to gather rows by: its summary is counted too."""
        (piece,) = self._line.pieces(position, position + 1)
        return min(self._source_length, int(self._split.lengths(piece.shard)[piece.document]))


def _row(tokens: np.ndarray, global_tokens: int, labels: np.ndarray) -> SummaryRow:
    return SummaryRow(tokens, np.ones(len(tokens), dtype=np.int64), global_tokens, labels)
