"""Sequences for learning labels of texts with a question beside each, or with other global tokens than the first."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest
from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.sampling.pairs import paired
from data_pipeline.sampling.shuffle import Piece
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.tokenizers.tokenizer import TextFormat

GlobalTokens = Literal["first", "question", "none"]
"""Which tokens attend to all: the first, it and those of the question, or none."""
QUESTION = "question"
"""The name of the text of an example that is asked about its text."""


@dataclass(frozen=True)
class TextInputs:
    """What a model is called with to read a text, and a question beside it."""

    around: TextFormat
    """The special tokens."""
    global_tokens: GlobalTokens = "first"
    question_length: int = 0
    """Tokens of a question that are read at most; 0: nothing is asked."""
    has_types: bool = False
    """Whether the model is told by token types which text is which."""

    def beside(self, question: int) -> int:
        """Returns how many tokens stand beside a text, given those of its question."""
        if not self.question_length:
            return len(self.around.before) + len(self.around.after)
        return self.around.around_pair + min(question, self.question_length)

    def of(self, text: np.ndarray, question: np.ndarray) -> NamedArrays:
        """Returns the arguments by name, (tokens,) int64; where the first token alone is global, models need no mask.

        Args:
            text, question: token ids without special ones.
        """
        around, asked = self.around, question[: self.question_length]
        if self.question_length:
            ids, types = paired(asked, text, around)
        else:
            ids = np.concatenate([around.before, text, around.after]).astype(np.int64)
            types = np.zeros_like(ids)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if self.global_tokens != "first":
            count = len(around.before) + len(asked) if self.global_tokens == "question" else 0
            inputs["global_attention_mask"] = (np.arange(len(ids)) < count).astype(np.int64)
        if self.has_types:
            inputs["token_type_ids"] = types
        return inputs


class QuestionSequences(LabelledSequences):
    """One example per sequence: the arrays of `TextInputs.of`, and "labels" as in `LabelledSequences`.

    The text alone is cut or read in windows, each with the question. Arguments and errors not named here are as there.

    Args:
        question: the name of the token ids that are asked; None: there are none.
        inputs: how both are read.
    """

    def __init__(self, split: Split, *, question: str | None, inputs: TextInputs, **labelled: Any) -> None:
        super().__init__(split, **labelled)
        if question is not None:
            split.check_has(question, f"holds no {question}: prepare it with this text")
        self.fingerprint = digest("questions", self.fingerprint, inputs.global_tokens, inputs.question_length)
        self._question = question
        self._inputs = inputs

    def sequence(self, position: int) -> NamedArrays:
        found = super().sequence(position)
        return {**self._inputs.of(found["input_ids"][1:-1], found[QUESTION]), "labels": found["labels"]}

    def _beside(self, piece: Piece) -> int:
        lengths = None if self._question is None else self._split.lengths(piece.shard, self._question)
        return self._inputs.beside(0 if lengths is None else int(lengths[piece.example]))

    def _arrays(self, read: Example | None, shown: slice) -> NamedArrays:
        """Returns those of the text alone, and its question whole."""
        asked = () if read is None or self._question is None else read.tokens[self._question]
        return {**super()._arrays(read, shown), QUESTION: np.array(asked, dtype=np.int64)}
