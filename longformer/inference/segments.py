"""How a document is read whose mentions are to be clustered: whole, or in overlapping segments.

Training, evaluation and prediction share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SegmentReading:
    """What a model of coreference reads of documents.

    Raises:
        ValueError: segments would not move on through a document.
    """

    length: int
    """Tokens at a time, those that begin and end a segment included."""
    overlap: int
    """Tokens of a segment that the next one has too, where a document does not fit into one."""
    begin: int
    """The token that begins a segment."""
    end: int
    """The token that ends one."""
    genres: Sequence[str]
    """Those that the model knows, in the order of their numbers."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.length - 2:
            raise ValueError(f"overlap must be from 0 to below {self.length - 2}, got {self.overlap}")

    def arrays(self, document: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns what a model reads of a document: the arguments of `LongformerForCoreference.forward`, not batched.

        Args:
            document: "ids", token ids without special ones; "pieces", how many tokens each word has; "sentences", how
                many words each has; "speakers", of each sentence, "" where unknown, or none; "genre"; "clusters",
                first and last word of each mention of each cluster. Mentions that begin or end with a word without
                tokens are left out.
        """
        ids, pieces = (np.asarray(document[name], dtype=np.int64) for name in ("ids", "pieces"))
        words = np.repeat(np.arange(len(pieces)), pieces)
        sentences = np.repeat(np.arange(len(document["sentences"])), document["sentences"])[words]
        speakers = _numbers(document["speakers"] or [""] * len(document["sentences"]))[sentences]
        genre = self.genres.index(document["genre"]) + 1 if document["genre"] in self.genres else 0
        return {
            **self._segments(ids),
            "word_ids": words,
            "sentence_ids": sentences,
            "speaker_ids": speakers,
            "genre": np.array(genre),
            "labels": _mentions(document["clusters"], pieces),
        }

    def _segments(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns segments, the last of which ends with the document, and where each of its tokens is read."""
        room = self.length - 2
        last = max(0, len(ids) - room)
        starts = np.unique(np.minimum(np.arange(0, last + room, room - self.overlap), last))
        width = min(room, len(ids))
        rows = np.full((len(starts), width + 2), self.end)
        rows[:, 0] = self.begin
        rows[:, 1:-1] = ids[starts[:, None] + np.arange(width)]
        # Of several segments a token is read in the one whose middle is nearest: there most stands on both sides of it.
        tokens = np.arange(len(ids))
        segments = np.searchsorted((starts[:-1] + starts[1:] + width - 1) / 2, tokens)
        return {
            "input_ids": rows,
            "attention_mask": np.ones_like(rows),
            "token_positions": segments * (width + 2) + 1 + tokens - starts[segments],
        }


def _numbers(names: Sequence[str]) -> np.ndarray:
    """Returns a number for each name, in the order in which they first appear, from 1 on; 0 for ""."""
    known = {"": 0}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)


def _mentions(clusters: Sequence[Sequence[Sequence[int]]], pieces: np.ndarray) -> np.ndarray:
    """Returns first token, last token and cluster of each mention, (mentions, 3) int64."""
    mentions = np.array(
        [(first, last, number) for number, cluster in enumerate(clusters) for first, last in cluster], dtype=np.int64
    ).reshape(-1, 3)
    ends = pieces.cumsum()
    firsts, lasts, numbers = mentions[(pieces[mentions[:, :2]] > 0).all(1)].T
    return np.stack([(ends - pieces)[firsts], ends[lasts] - 1, numbers], axis=1)
