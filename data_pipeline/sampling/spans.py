"""Sequences for learning to answer: a question, a window of its context, and where the answers stand in it."""

import math

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest
from data_pipeline.sampling.labelled import LabelledSequences, LongDocuments
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.order import sample_at
from data_pipeline.sampling.questions import TextInputs
from data_pipeline.sampling.shuffle import Piece
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.corpora import TEXT, spans_field
from data_pipeline.sources.questions import ANSWERS, QUESTION

MAX_SPANS = 64
"""Places of answers in a window that are learned; more are the first of them (Longformer paper, TriviaQA)."""


class SpanSequences(LabelledSequences):
    """One question per sequence: the arrays of `TextInputs.of`, and "start_positions" and "end_positions", (places,)
    int64 each: where the first and the last token of each place stand at which an answer does.

    Of a context that is too long, every epoch shows another window, and every second one, the first included, a window
    that holds an answer. Where a window holds no whole answer, the place is the first token: there is none here. A
    damaged example, and one of whose answers the tokenizer makes nothing, has the places IGNORED, which do not count.
    Arguments and errors not named here are as in `LabelledSequences`.

    Args:
        inputs: how question and context are read.
        overlap: tokens that two windows share, so that an answer at an edge is whole in one of them.
        learns_none: whether the first token is the place in windows that hold no whole answer; else they do not count.
    """

    def __init__(
        self,
        split: Split,
        *,
        inputs: TextInputs,
        overlap: int,
        learns_none: bool = True,
        sequence_length: int,
        seed: int,
        long_documents: LongDocuments,
    ) -> None:
        super().__init__(
            split,
            text=TEXT,
            label=ANSWERS,
            problem="single_label",
            classes=(),
            sequence_length=sequence_length,
            seed=seed,
            long_documents=long_documents,
        )
        split.check_has(QUESTION, "holds no questions: prepare it as questions about texts")
        self.fingerprint = digest(
            "spans", self.fingerprint, inputs.global_tokens, inputs.question_length, overlap, learns_none
        )
        self.padding = {**self.padding, "start_positions": IGNORED, "end_positions": IGNORED}
        self._inputs = inputs
        self._overlap = overlap
        self._learns_none = learns_none

    def sequence(self, position: int) -> NamedArrays:
        piece = self._piece(position)
        read = self._split.read(piece.shard, piece.example)
        if read is None:
            nothing = np.empty(0, dtype=np.int64)
            return {**self._inputs.of(nothing, nothing), **_places([(IGNORED, IGNORED)])}
        room = self._sequence_length - self._beside(piece)
        start = self._window(piece, read, room, epoch=position // self.per_epoch)
        text, question = (read.tokens[name].astype(np.int64) for name in (TEXT, QUESTION))
        shown = text[start : start + room]
        before = len(self._inputs.around.before) + len(question) + len(self._inputs.around.between)
        found = [
            (first - start + before, last - start + before)
            for first, last in read.fields[spans_field(TEXT)]
            if start <= first and last < start + len(shown)
        ]
        if not found:
            is_lost = read.fields[ANSWERS] and not read.fields[spans_field(TEXT)]
            found = [(0, 0)] if self._learns_none and not is_lost else [(IGNORED, IGNORED)]
        return {**self._inputs.of(shown, question), **_places(found[:MAX_SPANS])}

    def check_room(self) -> None:
        """Raises DataError where a question is longer than what is read of one."""
        for shard in range(len(self._split.shards)):
            most = int(self._split.lengths(shard, QUESTION).max(initial=0))
            if most > self._inputs.question_length:
                raise DataError(
                    f"{self.name}: a question has {most:,} tokens, but {self._inputs.question_length:,} are read "
                    f"beside a context in sequences of {self._sequence_length:,}: shorten it, or use longer sequences"
                )

    def lengths(self) -> list[int]:
        """Returns how many tokens the contexts of the split have, with their questions."""
        shards = range(len(self._split.shards))
        found = [self._split.lengths(shard, TEXT) + self._split.lengths(shard, QUESTION) for shard in shards]
        return [int(each) + self._inputs.around.around_pair for each in np.concatenate(found)]

    def _beside(self, piece: Piece) -> int:
        return self._inputs.beside(int(self._split.lengths(piece.shard, QUESTION)[piece.example]))

    def _window(self, piece: Piece, read: Example, room: int, epoch: int) -> int:
        """Returns the first token of a context that an epoch shows."""
        tokens = len(read.tokens[TEXT])
        if self._long_documents != "windows" or tokens <= room:
            return self._start(piece, room, epoch)
        last, step = tokens - room, room - min(self._overlap, room // 2)
        starts = [min(last, step * number) for number in range(math.ceil(last / step) + 1)]
        spans = read.fields[spans_field(TEXT)]
        holding = [start for start in starts if any(start <= span[0] and span[1] < start + room for span in spans)]
        turn, is_other = divmod(epoch, 2)
        shown = starts if is_other or not holding else holding
        seed = self._seed + (piece.shard << 32) + piece.example
        return shown[sample_at(turn, epoch_size=len(shown), seed=seed)]


def _places(spans: list[tuple[int, int]]) -> NamedArrays:
    first, last = np.array(spans, dtype=np.int64).T
    return {"start_positions": first, "end_positions": last}
