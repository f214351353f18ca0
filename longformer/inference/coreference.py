"""Which clusters of mentions a model finds in documents. Evaluation and prediction share it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from longformer.inference.classification import IDS, Reading, padded_arrays
from longformer.inference.segments import SegmentReading

Clusters = list[list[tuple[int, int]]]
"""First and last word of each mention of each cluster."""
_BEHIND_THE_LAST = ("token_positions", "word_ids", "sentence_ids", "speaker_ids")


@dataclass(frozen=True)
class DocumentReading(Reading):
    """What a model that finds coreference reads of a document: all of it."""

    long_documents: str = "segments"
    """Longer ones are read in `segments`, or not at all (`refuse`)."""
    overlap: int = 0
    """Tokens that two segments share."""

    def spans(self, tokens: int, around: int = 2) -> list[slice]:
        if self.long_documents not in ("segments", "refuse"):
            raise ValueError(f"long_documents is {self.long_documents}")
        return [slice(0, tokens)]

    def segments(self, *, begin: int, end: int, genres: Sequence[str]) -> SegmentReading:
        """Returns how documents become segments; the overlap is at most half of one."""
        return SegmentReading(self.length, min(self.overlap, self.length // 2 - 1), begin, end, genres)


@torch.no_grad()
def document_clusters(
    model: Any,
    documents: Sequence[Mapping[str, np.ndarray]],
    *,
    singletons: bool,
    padding: int,
    device: torch.device | str = "cpu",
) -> list[Clusters]:
    """Returns the clusters of each document, as their first mentions stand in the text.

    Args:
        model: a model of coreference, or an engine around it.
        documents: what is read of each, see `SegmentReading.arrays`; they are read as one batch.
        singletons: whether mentions are found that nothing else refers to; a model that has not learned them gives
            no sensible ones.
        padding: the token that fills up shorter segments.
        device: where the model is.
    """
    filling = {IDS: padding, **dict.fromkeys(_BEHIND_THE_LAST, -1)}
    batch = {
        name: padded_arrays([document[name] for document in documents], filling.get(name, 0)).to(device)
        for name in documents[0]
        if name != "labels"
    }
    output = model(**batch)
    found = (each.tolist() for each in (output.spans, output.mention_scores, output.antecedents))
    return [
        _clusters(spans, scores, antecedents, document["word_ids"].tolist(), singletons=singletons)
        for spans, scores, antecedents, document in zip(*found, documents, strict=True)
    ]


def _clusters(
    spans: Sequence[Sequence[int]],
    scores: Sequence[float],
    antecedents: Sequence[int],
    words: Sequence[int],
    *,
    singletons: bool,
) -> Clusters:
    """Returns the clusters of one document, given the number of the span that each refers to."""
    clusters: list[list[int]] = []
    cluster_of: dict[int, list[int]] = {}
    for number, antecedent in enumerate(antecedents):
        if spans[number][0] < 0:
            break
        if antecedent < 0:
            clusters.append([])
        # What a span refers to stands before it.
        cluster_of[number] = clusters[-1] if antecedent < 0 else cluster_of[antecedent]
        cluster_of[number].append(number)
    return [
        [(words[spans[number][0]], words[spans[number][1]]) for number in cluster]
        for cluster in clusters
        if len(cluster) > 1 or (singletons and scores[cluster[0]] > 0)
    ]
