"""Sequences for learning to summarize: what the encoder reads and what is to be written, functions of the position."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_pipeline.sampling.base import Sequence, digest
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.pairs import paired
from data_pipeline.sampling.shuffle import ShuffledExamples
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.summaries import DOCUMENT, IDENTIFIER, QUERY, SUMMARY
from data_pipeline.tokenizers.subword import TextTokenizer
from data_pipeline.tokenizers.tokenizer import TextFormat

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


@dataclass(frozen=True)
class SummaryFormat:
    """How a model reads documents and writes summaries: the one definition for training, judging and use.

    A model of languages is told the language that it writes by the tokens around texts: mBART starts with the one that
    ends `document </s> language`, mBART-50 is made to write first the one that begins `language document </s>`.
    """

    source: TextFormat
    start: int
    """The decoder's first token, which it does not learn."""
    begin: tuple[int, ...]
    """Learned before the summary."""
    end: int
    forced_begin: int | None
    """What every summary in use begins with, where that is a language."""

    @classmethod
    def of(cls, tokenizer: TextTokenizer, *, begin_is_learned: bool = True) -> "SummaryFormat":
        """Returns the format of a tokenizer.

        Args:
            tokenizer: of the model.
            begin_is_learned: the two conventions of teacher forcing (semantics.md 5), for models without languages.
                True: labels are `<s> summary </s>`, and the decoder starts with `</s>`, as in Hugging Face. False:
                labels are `summary </s>`, and the decoder starts with `<s>`, as in the Longformer authors' code.
        """
        around, special = tokenizer.format, tokenizer.special
        ends = (special.begin, special.end)
        read = next((token for token in (*around.before, *around.after) if token not in ends), None)
        written = read if around.target_language is None else around.target_language
        begin: tuple[int, ...] = ()
        forced: int | None = None
        if read is not None and written is not None:
            if read in around.after:
                start = written
            else:
                start, begin, forced = special.end, (written,), written
        elif begin_is_learned:
            start, begin = special.end, (special.begin,)
        else:
            start = special.begin
        return cls(around, start, begin, special.end, forced)


def source_tokens(
    document: np.ndarray, query: np.ndarray, around: TextFormat, *, length: int, query_length: int
) -> tuple[np.ndarray, int]:
    """Returns what an encoder reads, and how many of its first tokens attend globally.

    It reads what the tokenizer makes of a text, such as `<s> document </s>`, with a global first token; where there is
    a query, what it makes of a pair, such as `<s> query </s> </s> document </s>`, with the query global too. The
    document's end is left out where `length` does not hold it.

    Args:
        document, query: 1-D int64, without special tokens; an empty query is none.
        around: what stands around them.
        length: tokens that are read at most, special ones included.
        query_length: tokens of the query that are read at most.
    """
    if not len(query):
        shown = document[: length - len(around.before) - len(around.after)]
        return np.concatenate([around.before, shown, around.after]).astype(np.int64), 1
    asked = query[:query_length]
    pair = paired(asked, document[: length - len(asked) - around.around_pair], around)
    return pair.ids, max(1, len(around.before) + len(asked))


class SummarySequences:
    """One document per sequence, and one of its summaries: another one in every epoch where it has several.

    What the encoder reads is that of `source_tokens`; of a summary that is too long the beginning is learned. A
    sequence is {"input_ids", "attention_mask", "global_attention_mask"}, all (length,) int64, and "labels" (target
    length,) int64. A damaged document is an empty one, and nothing is learned from it.

    Args:
        source_length: tokens that the encoder reads at most, special ones included.
        query_length: tokens of a query that it reads at most.
        target_length: tokens that are learned at most, special ones included.
        form: that of the tokenizer. The model has to be given its `start` as `decoder_start_token_id`.

    Raises:
        ValueError: a length leaves no room for text.
        DataError: the split was not prepared as documents with summaries.
    """

    def __init__(
        self,
        split: Split,
        *,
        form: SummaryFormat,
        source_length: int,
        query_length: int,
        target_length: int,
        seed: int,
    ) -> None:
        for name, length in (("source_length", source_length), ("target_length", target_length)):
            if length < _SHORTEST:
                raise ValueError(f"{name} must be at least {_SHORTEST}, got {length}")
        split.check_has(f"{SUMMARY}0", "holds no summaries: make them with longformer data prepare summaries")
        self.tokenizer = split.tokenizer
        self.name = split.name
        self.fingerprint = digest(
            "summaries", split.fingerprint, split.open_shards, source_length, target_length, bool(form.begin), seed
        )
        self._special = split.tokenizer.special_tokens
        self.padding: Mapping[str, int | float] = {"input_ids": self._special.padding, "labels": IGNORED}
        self._split = split
        self._source_length = source_length
        self._query_length = query_length
        self._target_length = target_length
        self._form = form
        self._line = ShuffledExamples(split, seed)
        self.per_epoch = self._line.length

    def sequence(self, position: int) -> Sequence:
        """Returns the sequence."""
        (piece,) = self._line.pieces(position, position + 1)
        read, form = self._split.read(piece.shard, piece.example), self._form
        if read is None:
            return _sequence(np.array([self._special.begin, self._special.end]), 1, np.array([IGNORED]))
        example = SummaryExample.of(read)
        summary = example.summaries[position // self.per_epoch % len(example.summaries)]
        text = summary[: self._target_length - 1 - len(form.begin)]
        labels = np.concatenate([form.begin, text, [form.end]]).astype(np.int64)
        source = source_tokens(
            example.document,
            example.query,
            form.source,
            length=self._source_length,
            query_length=self._query_length,
        )
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
