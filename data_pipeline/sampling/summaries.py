"""Sequences for learning to summarize: what the encoder reads and what is to be written, functions of the position."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_pipeline.sampling.base import Sequence, digest
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.shuffle import ShuffledExamples
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.summaries import DOCUMENT, IDENTIFIER, QUERY, SUMMARY
from data_pipeline.tokenizers.tokenizer import SpecialTokens

_SHORTEST = 16


@dataclass(frozen=True)
class SummaryExample:
    """A document with its summaries; token ids are 1-D int64, without special tokens."""

    identifier: str
    query: np.ndarray
    """Empty where nothing is asked."""
    document: np.ndarray
    summaries: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, example: Example) -> "SummaryExample":
        """Returns a prepared example by the roles of its texts."""
        tokens = {name: ids.astype(np.int64) for name, ids in example.tokens.items()}
        return cls(
            identifier=example.fields[IDENTIFIER],
            query=tokens.get(QUERY, np.empty(0, dtype=np.int64)),
            document=tokens[DOCUMENT],
            summaries=tuple(ids for name, ids in tokens.items() if name.startswith(SUMMARY)),
        )


def source_tokens(
    document: np.ndarray, query: np.ndarray, special: SpecialTokens, *, length: int
) -> tuple[np.ndarray, int]:
    """Returns what an encoder reads, and how many of its first tokens attend globally.

    It reads `<s> document </s>` with a global first token; where there is a query, `<s> query </s> </s> document </s>`,
    as the tokenizer writes pairs, with the query global too. The document's end is skipped where it is too long; of the
    query at most half of `length` is read.

    Args:
        document, query: 1-D int64, without special tokens; an empty query is none.
    """
    begin, end = [special.begin], [special.end]
    front = begin
    if len(query):
        front = np.concatenate([begin, query[: length // 2 - 3], end, end]).tolist()
    tokens = np.concatenate([front, document[: length - len(front) - 1], end]).astype(np.int64)
    return tokens, max(1, len(front) - 2)


class SummarySequences:
    """One document per sequence, and one of its summaries: another one in every epoch where it has several.

    What the encoder reads is that of `source_tokens`; of a summary that is too long the beginning is learned. A
    sequence is {"input_ids", "attention_mask", "global_attention_mask"}, all (length,) int64, and "labels" (target
    length,) int64. A damaged document is an empty one, and nothing is learned from it.

    Args:
        source_length: tokens that the encoder reads at most, special ones included.
        target_length: tokens that are learned at most, special ones included.
        begin_is_learned: the two conventions of teacher forcing (spec section 6). True: labels are
            `<s> summary </s>`, and the decoder starts with `</s>`, as in Hugging Face. False: labels are
            `summary </s>`, and the decoder starts with `<s>`, as in the Longformer authors' code. The model has to be
            given the matching `decoder_start_token_id`.

    Raises:
        ValueError: a length leaves no room for text.
        DataError: the split was not prepared as documents with summaries.
    """

    def __init__(
        self, split: Split, *, source_length: int, target_length: int, begin_is_learned: bool = True, seed: int
    ) -> None:
        for name, length in (("source_length", source_length), ("target_length", target_length)):
            if length < _SHORTEST:
                raise ValueError(f"{name} must be at least {_SHORTEST}, got {length}")
        split.check_has(f"{SUMMARY}0", "holds no summaries: make them with longformer data prepare summaries")
        self.tokenizer = split.tokenizer
        self._special = split.tokenizer.special_tokens
        self.name = split.name
        self.fingerprint = digest(
            "summaries", split.fingerprint, split.open_shards, source_length, target_length, begin_is_learned, seed
        )
        self.padding: Mapping[str, int | float] = {"input_ids": self._special.padding, "labels": IGNORED}
        self._split = split
        self._source_length = source_length
        self._target_length = target_length
        self._begin_is_learned = begin_is_learned
        self._line = ShuffledExamples(split, seed)
        self.per_epoch = self._line.length

    def sequence(self, position: int) -> Sequence:
        """Returns the sequence."""
        (piece,) = self._line.pieces(position, position + 1)
        read = self._split.read(piece.shard, piece.example)
        if read is None:
            return _sequence(np.array([self._special.begin, self._special.end]), 1, np.array([IGNORED]))
        example = SummaryExample.of(read)
        summary = example.summaries[position // self.per_epoch % len(example.summaries)]
        begin = [self._special.begin] if self._begin_is_learned else []
        text = summary[: self._target_length - 1 - len(begin)]
        labels = np.concatenate([begin, text, [self._special.end]]).astype(np.int64)
        source = source_tokens(example.document, example.query, self._special, length=self._source_length)
        return _sequence(*source, labels)

    def length(self, position: int) -> int:
        """Returns how long the encoder's part is, special tokens aside."""
        (piece,) = self._line.pieces(position, position + 1)
        asked = int(self._split.lengths(piece.shard, QUERY)[piece.example])
        return min(self._source_length, asked + int(self._split.lengths(piece.shard, DOCUMENT)[piece.example]))

    def longest(self, per_epoch: int) -> None:
        """Returns None: the number of sequences is that of the documents."""


def _sequence(tokens: np.ndarray, global_tokens: int, labels: np.ndarray) -> Sequence:
    is_global = np.arange(len(tokens)) < global_tokens
    return {
        "input_ids": tokens,
        "attention_mask": np.ones(len(tokens), dtype=np.int64),
        "global_attention_mask": is_global.astype(np.int64),
        "labels": labels,
    }
