"""Sequences for learning to select: a query and all candidates for its answer, before the documents that tell it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest
from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.order import Key, permutation
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.corpora import pieces_field
from data_pipeline.sources.labelled import LABEL
from data_pipeline.sources.wikihop import CANDIDATES, IDENTIFIER, MENTIONS, QUERY, SUPPORTS

WindowScores = Literal["mean", "sum"]
"""What the scores of a candidate in several windows become: their mean, as in the Longformer paper, or their sum, as in
its code."""


@dataclass(frozen=True)
class Marks:
    """The tokens around the parts of a sequence."""

    begin: int
    end: int
    """Stands on both sides of every document."""
    question: tuple[int, int]
    """Before and behind the query."""
    candidate: tuple[int, int]
    """Before and behind every candidate."""


@dataclass(frozen=True)
class CandidateExample:
    """A query with candidates and documents; token ids are 1-D int64, without special tokens."""

    query: np.ndarray
    candidates: tuple[np.ndarray, ...]
    supports: tuple[np.ndarray, ...]
    label: int
    """The number of the right candidate."""
    identifier: str
    question: str
    names: tuple[str, ...]
    """The candidates as the source has them."""
    mentions: tuple[int, ...]
    """How often each stands in the documents."""

    @classmethod
    def of(cls, example: Example) -> "CandidateExample":
        """Returns a prepared example by the roles of its texts."""
        fields = example.fields
        return cls(
            example.tokens[QUERY].astype(np.int64),
            _lines(example, CANDIDATES),
            _lines(example, SUPPORTS),
            fields[LABEL],
            fields[IDENTIFIER],
            fields[QUERY],
            tuple(fields[CANDIDATES]),
            tuple(fields[MENTIONS]),
        )

    def shuffled(self, key: Key) -> "CandidateExample":
        """Returns it with its candidates and its documents in the order of a key."""
        order = permutation(len(self.candidates), (*key, CANDIDATES))
        documents = permutation(len(self.supports), (*key, SUPPORTS))
        return replace(
            self,
            candidates=tuple(self.candidates[place] for place in order),
            supports=tuple(self.supports[place] for place in documents),
            label=int(np.flatnonzero(order == self.label)[0]),
            names=tuple(self.names[place] for place in order),
            mentions=tuple(self.mentions[place] for place in order),
        )

    @property
    def tokens(self) -> int:
        """How many tokens are read of it where all fit, special ones included."""
        return self.before + sum(2 + len(each) for each in self.supports)

    @property
    def before(self) -> int:
        """How many tokens stand before the documents."""
        return 3 + len(self.query) + sum(2 + len(each) for each in self.candidates)


class CandidateSequences(LabelledSequences):
    """One example per sequence: {"input_ids", "attention_mask", "global_attention_mask"}, all (windows, length) int64,
    "candidate_positions", (candidates,) int64, where each stands in every window, and "labels", the number of the right
    candidate (int64, no dimension); where scores are summed also "window_weights", (windows,) float32, all 1.

    A window is `<s> [question] query [/question] [ent] candidate [/ent] ...` and a part of
    `</s> document </s></s> document </s> ...`; all before the documents is global. The windows follow each other
    without overlap, and the last has what is left. Candidates and documents are in another order in every epoch, by the
    position alone. Arguments and errors not named here are as in `LabelledSequences`.

    Args:
        marks: the special tokens.
        long_documents: whether all windows are read, or the first alone (`truncate_end`).
        window_scores: whether the model is to sum the scores of the windows; else it takes their mean.

    Raises:
        DataError: the split was not prepared as queries with candidates.
    """

    def __init__(
        self,
        split: Split,
        *,
        marks: Marks,
        sequence_length: int,
        seed: int,
        long_documents: Literal["windows", "truncate_end"] = "windows",
        window_scores: WindowScores = "mean",
    ) -> None:
        split.check_has(CANDIDATES, "holds no candidates: prepare it as queries with candidates")
        super().__init__(
            split,
            text=SUPPORTS,
            label=LABEL,
            problem="single_label",
            classes=(),
            sequence_length=sequence_length,
            seed=seed,
            long_documents=long_documents,
        )
        self.fingerprint = digest("candidates", self.fingerprint, window_scores)
        self.padding = {**self.padding, "candidate_positions": -1}
        self._marks = marks
        self._window_scores = window_scores

    def sequence(self, position: int) -> NamedArrays:
        """Returns the sequence.

        Raises:
            DataError: query and candidates leave no room for documents.
        """
        piece = self._piece(position)
        read = self._split.read(piece.shard, piece.example)
        if read is None:
            ends = np.array([self._marks.begin, self._marks.end])
            return self._arrays_of([ends], before=0, places=[0], label=IGNORED)
        key = (self._seed, piece.shard, piece.example, position // self.per_epoch)
        example = CandidateExample.of(read).shuffled(key)
        front, places = self._front(example)
        room = self._sequence_length - len(front)
        if room <= 0:
            raise self._no_room(example)
        end = [self._marks.end]
        documents = np.concatenate([part for each in example.supports for part in (end, each, end)])
        starts = [0] if self._long_documents == "truncate_end" else range(0, len(documents), room)
        windows = [np.concatenate([front, documents[start : start + room]]) for start in starts]
        return self._arrays_of(windows, before=len(front), places=places, label=example.label)

    def length(self, position: int) -> int:
        """Returns about how many tokens are read, in all windows."""
        piece = self._piece(position)
        tokens = int(self._about(piece.shard)[piece.example])
        return min(self._sequence_length, tokens) if self._long_documents == "truncate_end" else tokens

    def lengths(self) -> list[int]:
        """Returns about how many tokens the examples of the split have, those between their parts left out."""
        return [int(each) for shard in range(len(self._split.shards)) for each in self._about(shard)]

    def most_windows(self) -> int:
        """Returns in how many windows an example is read at most; a window too many is possible."""
        if self._long_documents == "truncate_end":
            return 1
        most = 1
        for shard in range(len(self._split.shards)):
            room = np.maximum(1, self._sequence_length - self._most_before(shard))
            most = max(most, int(np.ceil(self._split.lengths(shard, SUPPORTS) / room).max()))
        return most

    def check_room(self) -> None:
        """Raises DataError where the query and the candidates of an example leave no room for its documents."""
        for shard in range(len(self._split.shards)):
            # Those alone are read of which their lengths do not tell.
            for number in np.flatnonzero(self._most_before(shard) >= self._sequence_length):
                read = self._split.read(shard, int(number))
                if read is not None and (example := CandidateExample.of(read)).before >= self._sequence_length:
                    raise self._no_room(example)

    def _no_room(self, example: CandidateExample) -> DataError:
        return DataError(
            f"{self.name}: the query {example.identifier} with its {len(example.candidates)} candidates has "
            f"{example.before:,} tokens, special ones included, which leaves no room for a text in sequences of "
            f"{self._sequence_length:,}: use longer ones"
        )

    def _about(self, shard: int) -> np.ndarray:
        lengths = [self._split.lengths(shard, name) for name in (QUERY, CANDIDATES, SUPPORTS)]
        return np.array(lengths, dtype=np.int64).sum(0) + 3

    def _most_before(self, shard: int) -> np.ndarray:
        """Returns how many tokens stand before the documents of each example where every candidate has one token."""
        return self._split.lengths(shard, QUERY).astype(np.int64) + 3 * self._split.lengths(shard, CANDIDATES) + 3

    def _front(self, example: CandidateExample) -> tuple[np.ndarray, list[int]]:
        """Returns what stands before the documents, and where each candidate begins there."""
        marks = self._marks
        front = [marks.begin, marks.question[0], *example.query, marks.question[1]]
        places = []
        for candidate in example.candidates:
            places.append(len(front))
            front += [marks.candidate[0], *candidate, marks.candidate[1]]
        return np.array(front, dtype=np.int64), places

    def _arrays_of(
        self, windows: Sequence[np.ndarray], *, before: int, places: Sequence[int], label: int
    ) -> NamedArrays:
        shape = len(windows), max(map(len, windows))
        ids = np.full(shape, self._special.padding)
        mask = np.zeros(shape, dtype=np.int64)
        for number, window in enumerate(windows):
            ids[number, : len(window)] = window
            mask[number, : len(window)] = 1
        is_before = np.broadcast_to(np.arange(shape[1]) < before, shape).astype(np.int64)
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "global_attention_mask": is_before,
            "candidate_positions": np.array(places),
            "labels": np.array(label),
        }
        if self._window_scores == "sum":
            arrays["window_weights"] = np.ones(len(windows), dtype=np.float32)
        return arrays


def _lines(example: Example, name: str) -> tuple[np.ndarray, ...]:
    """Returns the tokens of every line of a text."""
    ends = np.cumsum(example.fields[pieces_field(name)])
    return tuple(np.split(example.tokens[name].astype(np.int64), ends[:-1]))
