"""Which clusters of mentions a model finds in documents. Evaluation and prediction share it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from longformer.inference.classification import IDS, padded_arrays

Clusters = list[list[tuple[int, int]]]
"""First and last word of each mention of each cluster."""
_BEHIND_THE_LAST = ("token_positions", "word_ids", "sentence_ids", "speaker_ids")


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
    clusters: Clusters = []
    cluster_of: dict[int, list[tuple[int, int]]] = {}
    for number, ((first, last), antecedent) in enumerate(zip(spans, antecedents, strict=True)):
        if first < 0:
            break
        # A span may turn out a mention only when one behind it refers to it: until then it is a cluster of one.
        cluster = cluster_of.get(antecedent)
        if cluster is None:
            cluster = []
            clusters.append(cluster)
        cluster.append((words[first], words[last]))
        cluster_of[number] = cluster
    score_of = {(words[first], words[last]): score for (first, last), score in zip(spans, scores, strict=True)}
    return [cluster for cluster in clusters if len(cluster) > 1 or (singletons and score_of[cluster[0]] > 0)]
