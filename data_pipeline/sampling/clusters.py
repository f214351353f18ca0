"""Sequences for learning coreference: a whole document each, laid out in segments, and the clusters of its mentions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest
from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.sampling.order import sample_at
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.coreference import CLUSTERS, DOCUMENT, GENRE, PART, SENTENCES, SPEAKERS, WORDS
from data_pipeline.sources.corpora import TEXT, pieces_field

Layout = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]
"""Returns the arrays of a document that `CoreferenceDocument.as_mapping` gives."""


@dataclass(frozen=True)
class CoreferenceDocument:
    """A document with clusters of mentions."""

    name: str
    part: str
    """Which part of the document of that name it is, as in the source."""
    words: Sequence[str]
    ids: np.ndarray
    """(tokens,) int64, without special tokens."""
    pieces: np.ndarray
    """(words,) int64: how many tokens each word has."""
    sentences: Sequence[int]
    """How many words each has."""
    speakers: Sequence[str]
    """Of each sentence; empty where unknown."""
    genre: str
    clusters: Sequence[Sequence[Sequence[int]]]
    """The first and last word of each mention."""

    @classmethod
    def of(cls, example: Example) -> "CoreferenceDocument":
        """Returns a prepared example."""
        fields = example.fields
        return cls(
            fields[DOCUMENT],
            fields[PART],
            fields[WORDS],
            example.tokens[TEXT].astype(np.int64),
            np.array(fields[pieces_field(TEXT)], dtype=np.int64),
            fields[SENTENCES],
            fields[SPEAKERS],
            fields[GENRE],
            fields[CLUSTERS],
        )

    def as_mapping(self) -> dict[str, Any]:
        """Returns what is laid out of it: ids, pieces, sentences, speakers, genre and clusters."""
        names = ("ids", "pieces", "sentences", "speakers", "genre", "clusters")
        return {name: getattr(self, name) for name in names}

    def starts(self, most_tokens: int) -> int:
        """Returns at how many sentences a stretch of at most `most_tokens` tokens may begin: from the first one on, up
        to the first from which all the rest is in it."""
        rest = len(self.ids) - self._tokens_before()[self._first_words()[:-1]]
        return min(int((rest > most_tokens).sum()) + 1, len(self.sentences))

    def cropped(self, start: int, most_tokens: int, *, singletons: bool) -> "CoreferenceDocument":
        """Returns the sentences from `start` on that have at most `most_tokens` tokens together.

        At least the words of the first one that fit are in it. Mentions that do not lie inside are left out, and so
        are clusters without one; without `singletons` also those that are left with one.
        """
        firsts, before = self._first_words(), self._tokens_before()
        first = int(firsts[start])
        room = before[first] + most_tokens
        stop = int(np.searchsorted(before[firsts], room, side="right")) - 1
        last = int(firsts[stop]) if stop > start else int(np.searchsorted(before, room, side="right")) - 1
        clusters = [
            [(begin - first, end - first) for begin, end in cluster if begin >= first and end < last]
            for cluster in self.clusters
        ]
        return replace(
            self,
            words=self.words[first:last],
            ids=self.ids[before[first] : before[last]],
            pieces=self.pieces[first:last],
            sentences=self.sentences[start:stop] if stop > start else [last - first],
            speakers=self.speakers[start : max(stop, start + 1)],
            clusters=[cluster for cluster in clusters if len(cluster) > (0 if singletons else 1)],
        )

    def _first_words(self) -> np.ndarray:
        """Returns the first word of every sentence, and how many words there are."""
        return np.cumsum([0, *self.sentences])

    def _tokens_before(self) -> np.ndarray:
        """Returns how many tokens stand before each word, and how many there are."""
        return np.cumsum([0, *self.pieces])


_DAMAGED = CoreferenceDocument("", "", [], np.empty(0, np.int64), np.empty(0, np.int64), [], [], "", [])


class ClusterSequences(LabelledSequences):
    """One document per sequence, as the arrays of `layout`.

    A document of more than `most_tokens` tokens is cropped to a stretch of whole sentences that begins at another one
    in every epoch, chosen by the position alone, or refused. A damaged example is a document without words. What else
    is not named here is as in `LabelledSequences`.

    Args:
        layout: makes the arrays of a document, among them "input_ids" and "attention_mask".
        layout_key: tells this layout from others.
        most_tokens: tokens of a document that are read, without special ones.
        long_documents: what becomes of longer ones.
        singletons: whether clusters that are left with one mention by cropping are kept.

    Raises:
        DataError: the split was not prepared as documents with clusters.
    """

    def __init__(
        self,
        split: Split,
        *,
        layout: Layout,
        layout_key: str,
        most_tokens: int,
        long_documents: Literal["crop", "refuse"] = "crop",
        singletons: bool,
        seed: int,
    ) -> None:
        super().__init__(
            split,
            text=TEXT,
            label=CLUSTERS,
            problem="single_label",
            classes=(),
            sequence_length=most_tokens + 2,
            seed=seed,
        )
        self.fingerprint = digest("clusters", self.fingerprint, layout_key, singletons)
        names = ("token_positions", "word_ids", "sentence_ids", "speaker_ids", "labels")
        self.padding = {**self.padding, **dict.fromkeys(names, -1)}
        self._layout = layout
        self._most_tokens = most_tokens
        self._is_refused = long_documents == "refuse"
        self._singletons = singletons

    def sequence(self, position: int) -> NamedArrays:
        piece = self._piece(position)
        document = self._document(piece.shard, piece.example)
        if len(document.ids) > self._most_tokens:
            starts = document.starts(self._most_tokens)
            # The beginnings take turns, those of each document in an order of their own.
            key = self._seed + (piece.shard << 32) + piece.example
            start = sample_at(position // self.per_epoch, epoch_size=starts, seed=key)
            document = document.cropped(start, self._most_tokens, singletons=self._singletons)
        return self._layout(document.as_mapping())

    def whole(self, shard: int, example: int) -> NamedArrays:
        return self._layout(self._document(shard, example).as_mapping())

    def lengths(self) -> list[int]:
        """Returns how many tokens the documents of the split have, special ones left out."""
        shards = range(len(self._split.shards))
        return [int(each) for shard in shards for each in self._split.lengths(shard, TEXT)]

    def check_room(self) -> None:
        """Raises DataError where a document is longer than may be."""
        if not self._is_refused:
            return
        for shard in range(len(self._split.shards)):
            lengths = self._split.lengths(shard, TEXT)
            for number in np.flatnonzero(lengths > self._most_tokens):
                raise DataError(
                    f"{self.name}: the document {self._document(shard, int(number)).name} has {lengths[number]:,} "
                    f"tokens, more than the {self._most_tokens:,} that a sequence has room for: use longer ones, or "
                    "have long documents read in segments"
                )

    def _document(self, shard: int, example: int) -> CoreferenceDocument:
        read = self._split.read(shard, example)
        return _DAMAGED if read is None else CoreferenceDocument.of(read)
