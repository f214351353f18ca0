"""How a model selects: it reads a query and all candidates for its answer before documents, in windows.

Evaluation and prediction share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer

from longformer.errors import LongformerError
from longformer.inference.classification import IDS, Reading, padded_arrays
from longformer.inference.queries import CANDIDATE_TOKENS
from longformer.inference.texts import added_ids

CandidateInputs = Mapping[str, np.ndarray]
"""What a model reads of one query: the arguments of `LongformerForCandidateSelection` without the batch."""
_POSITIONS = "candidate_positions"


@dataclass(frozen=True)
class CandidateReading(Reading):
    """What is read of documents behind a query and its candidates: `windows` follow each other without overlap, and
    the last has what is left."""

    long_documents: str = "windows"
    window_scores: str = "mean"
    """What the scores of a candidate in several windows become: their `mean` or their `sum`."""

    def __post_init__(self) -> None:
        if self.window_scores not in ("mean", "sum"):
            raise ValueError(f"window_scores is {self.window_scores}")

    def spans(self, tokens: int, around: int = 2) -> list[slice]:
        room = self.length - around
        if self.long_documents == "windows":
            return [slice(start, start + room) for start in range(0, max(1, tokens), room)]
        return super().spans(tokens, around)


@dataclass(frozen=True)
class Marks:
    """The tokens around the parts of what is read."""

    begin: int
    end: int
    """Stands on both sides of every document."""
    question: tuple[int, int]
    """Before and behind the query."""
    candidate: tuple[int, int]
    """Before and behind every candidate."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Returns those of a tokenizer.

        Raises:
            LongformerError: it has no tokens for this.
        """
        ids = added_ids(tokenizer, CANDIDATE_TOKENS, learned="to select candidates")
        text = tokenizer.encode("a").ids
        return cls(text[0], text[-1], (ids[0], ids[1]), (ids[2], ids[3]))


def candidate_inputs(
    reading: CandidateReading,
    query: Sequence[int] | np.ndarray,
    candidates: Sequence[Sequence[int] | np.ndarray],
    supports: Sequence[Sequence[int] | np.ndarray],
    *,
    marks: Marks,
    padding: int,
) -> CandidateInputs:
    """Returns what is read of a query; all before the documents is global.

    Args:
        reading: says what is read of the documents; query and candidates are read whole.
        query, candidates, supports: token ids without special ones.
        marks: the special tokens.
        padding: the token that fills up the last window.

    Raises:
        LongformerError: query and candidates leave no room for the documents.
    """
    front: list[Any] = [marks.begin, marks.question[0], *query, marks.question[1]]
    places = []
    for candidate in candidates:
        places.append(len(front))
        front += [marks.candidate[0], *candidate, marks.candidate[1]]
    if len(front) >= reading.length:
        raise LongformerError(
            f"the query and its {len(candidates)} candidates leave no room for the documents: they have {len(front):,} "
            f"tokens with those around them, and {reading.length:,} are read; shorten them"
        )
    documents = np.concatenate([part for each in supports for part in ([marks.end], each, [marks.end])])
    parts = [documents[span] for span in reading.spans(len(documents), len(front))]
    lengths = len(front) + np.array([len(part) for part in parts])
    columns = np.arange(lengths.max())
    ids = np.full((len(parts), len(columns)), padding)
    ids[:, : len(front)] = front
    for row, part in zip(ids, parts, strict=True):
        row[len(front) : len(front) + len(part)] = part
    inputs = {
        IDS: ids,
        "attention_mask": (columns < lengths[:, None]).astype(np.int64),
        "global_attention_mask": np.broadcast_to(columns < len(front), ids.shape).astype(np.int64),
        _POSITIONS: np.array(places),
    }
    if reading.window_scores == "sum":
        inputs["window_weights"] = np.ones(len(parts), dtype=np.float32)
    return inputs


@torch.no_grad()
def candidate_values(
    model: Any, queries: Sequence[CandidateInputs], *, padding: int, device: torch.device | str = "cpu"
) -> list[list[float]]:
    """Returns the probabilities of the candidates of each query.

    Args:
        model: a `LongformerForCandidateSelection`, or an engine around it.
        queries: are read as one batch.
        padding: the token that fills up shorter ones.
        device: where the model is.
    """
    filling = {IDS: padding, _POSITIONS: -1}
    batch = {name: padded_arrays([query[name] for query in queries], filling.get(name, 0)) for name in queries[0]}
    logits = model(**{name: each.to(device) for name, each in batch.items()}).logits.float()
    values = logits.softmax(-1).tolist()
    return [value[: len(query[_POSITIONS])] for value, query in zip(values, queries, strict=True)]
