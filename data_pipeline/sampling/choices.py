"""Sequences for learning to choose: a text beside each of its choices, and which of them is right."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence as NamedArrays
from data_pipeline.sampling.base import digest
from data_pipeline.sampling.labelled import LabelledSequences, LongDocuments
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.pairs import paired
from data_pipeline.sampling.shuffle import Piece
from data_pipeline.shards.prepared import Split
from data_pipeline.shards.shard import Example
from data_pipeline.sources.choices import CHOICE, CHOICES, QUESTION
from data_pipeline.sources.corpora import TEXT
from data_pipeline.sources.labelled import LABEL
from data_pipeline.tokenizers.tokenizer import TextFormat

_ARRAYS = ("input_ids", "token_type_ids", "attention_mask", "global_attention_mask")


@dataclass(frozen=True)
class ChoiceExample:
    """A text with choices; token ids are 1-D int64, without special tokens."""

    text: np.ndarray
    choices: tuple[np.ndarray, ...]
    """What is read beside the text, the question included."""
    label: int
    """The number of the right one."""
    names: tuple[str, ...]
    """The choices alone."""
    question: str

    @classmethod
    def of(cls, example: Example) -> "ChoiceExample":
        """Returns a prepared example by the roles of its texts."""
        tokens = {name: ids.astype(np.int64) for name, ids in example.tokens.items()}
        names = tuple(example.fields[CHOICES])
        choices = tuple(tokens[f"{CHOICE}{place}"] for place in range(len(names)))
        return cls(tokens[TEXT], choices, example.fields[LABEL], names, example.fields[QUESTION])


class ChoiceSequences(LabelledSequences):
    """One example per sequence: {"input_ids", "token_type_ids", "attention_mask", "global_attention_mask"}, all
    (choices, length) int64, and "labels", the number of the right choice (int64, no dimension).

    A row is `<s> text </s></s> choice </s>`, as the tokenizer makes it of a pair, and all behind its separators is
    global. Of a longer text all rows show the same part, so that no choice is read with more of it than another.
    Arguments and errors not named here are as in `LabelledSequences`.

    Args:
        around: the special tokens of a pair.

    Raises:
        DataError: the split was not prepared as texts with choices.
    """

    def __init__(
        self,
        split: Split,
        *,
        around: TextFormat,
        sequence_length: int,
        seed: int,
        long_documents: LongDocuments = "truncate_end",
    ) -> None:
        super().__init__(
            split,
            text=TEXT,
            label=LABEL,
            problem="single_label",
            classes=(),
            sequence_length=sequence_length,
            seed=seed,
            long_documents=long_documents,
        )
        split.check_has(f"{CHOICE}0", "holds no choices: prepare it as texts with choices")
        self.fingerprint = digest("choices", self.fingerprint)
        self._around = around

    def check_room(self) -> None:
        """Raises DataError where the question and a choice of an example leave no room for its text."""
        for shard in range(len(self._split.shards)):
            most = int(self._all_beside(shard).max())
            if most >= self._sequence_length:
                raise DataError(
                    f"{self.name}: a question with its longest choice has {most:,} tokens, special ones included, "
                    f"which leaves no room for a text in sequences of {self._sequence_length:,}: use longer ones"
                )

    def lengths(self) -> list[int]:
        """Returns how many tokens the texts of the split have, with all that stands beside them."""
        shards = range(len(self._split.shards))
        found = [self._split.lengths(shard, TEXT) + self._all_beside(shard) for shard in shards]
        return [int(each) for each in np.concatenate(found)]

    def _beside(self, piece: Piece) -> int:
        return int(self._all_beside(piece.shard)[piece.example])

    def _all_beside(self, shard: int) -> np.ndarray:
        """Returns how many tokens stand beside the text of each example of a shard."""
        names = {name for name in self._split.shards[shard].tokens if name.startswith(CHOICE)}
        return self._around.around_pair + np.max([self._split.lengths(shard, name) for name in names], axis=0)

    def _sequence(self, shard: int, example: int, shown: slice) -> NamedArrays:
        read = self._split.read(shard, example)
        nothing = np.empty(0, dtype=np.int64)
        found = ChoiceExample(nothing, (nothing,), IGNORED, (), "") if read is None else ChoiceExample.of(read)
        rows = [paired(found.text[shown], choice, self._around) for choice in found.choices]
        shape = len(rows), max(len(row.ids) for row in rows)
        arrays = {name: np.zeros(shape, dtype=np.int64) for name in _ARRAYS}
        arrays["input_ids"] += self._special.padding
        for number, (row, choice) in enumerate(zip(rows, found.choices, strict=True)):
            end = len(row.ids)
            arrays["input_ids"][number, :end] = row.ids
            arrays["token_type_ids"][number, :end] = row.types
            arrays["attention_mask"][number, :end] = 1
            arrays["global_attention_mask"][number, end - len(choice) - len(self._around.after) : end] = 1
        return {**arrays, "labels": np.array(found.label)}
