"""How well mentions are clustered by what they refer to: the scores of the official scorer of CoNLL-2012, version 8.01
(Pradhan et al. 2014; BLANC as Luo et al. 2014), and LEA (Moosavi and Strube 2016).

As that scorer does, numerators and denominators are summed over the documents before they are divided.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from longformer.evaluation.classification import Scores, with_confidence

Clusters = Sequence[Sequence[Hashable]]
"""The mentions of each cluster of a document; any names of mentions will do, such as first and last word."""
CONLL = ("muc", "b3", "ceafe")
"""The F1 that the shared task averages."""
_MEASURES = (*CONLL, "ceafm", "lea", "mention")
_PARTS = ("recall", "precision", "f1")


def coreference_scores(key: Sequence[Clusters], response: Sequence[Clusters], *, singletons: bool = True) -> Scores:
    """Returns how well the clusters of documents are found.

    A mention counts as found where the key has the same one. Of a mention that is repeated the first counts.

    Args:
        key: the right clusters of every document.
        response: those found, of the same documents.
        singletons: False: clusters of one mention are left out on both sides, as if they were not there.

    Returns:
        recall, precision and f1 of muc, b3, ceafm, ceafe, blanc, lea and mention, such as muc_f1 (0 where there is
        nothing to find or nothing found), and conll_f1, the mean F1 of CONLL; `confidence_95` with low and high of
        each, of a bootstrap over the documents.

    Raises:
        ValueError: there are no documents.
    """
    counts = np.array(
        [
            _counts(_distinct(wanted, singletons), _distinct(found, singletons))
            for wanted, found in zip(key, response, strict=True)
        ]
    )
    if not counts.size:
        raise ValueError("there is no document to score")

    def scores(weights: np.ndarray) -> dict[str, float]:
        totals = np.tensordot(weights, counts, 1)
        parts = _divided(totals)
        by_measure = dict(zip(_MEASURES, parts, strict=False))
        # The mean over the kinds of links that the key has.
        occurring = totals[-2:, 1:2] > 0
        by_measure["blanc"] = (parts[-2:] * occurring).sum(0) / max(1, occurring.sum())
        return {
            "conll_f1": np.mean([by_measure[name][2] for name in CONLL]),
            **{
                f"{name}_{part}": value
                for name, values in by_measure.items()
                for part, value in zip(_PARTS, values, strict=True)
            },
        }

    return with_confidence(scores, len(counts), counts.size)


def _distinct(clusters: Clusters, singletons: bool) -> list[list[Hashable]]:
    """Returns the clusters without repeated mentions, and without those that have too few."""
    seen: set[Hashable] = set()
    kept = []
    for cluster in clusters:
        fresh = [mention for mention in dict.fromkeys(cluster) if mention not in seen]
        seen.update(fresh)
        if len(fresh) > (0 if singletons else 1):
            kept.append(fresh)
    return kept


def _counts(key: Clusters, response: Clusters) -> np.ndarray:
    """Returns what is summed over documents: (measures and the two kinds of links of BLANC, 4) float64.

    The four are numerator and denominator of recall, then of precision.
    """
    cluster_of = {mention: number for number, cluster in enumerate(key) for mention in cluster}
    common = np.zeros((len(key), len(response)))
    for number, cluster in enumerate(response):
        for mention in cluster:
            if mention in cluster_of:
                common[cluster_of[mention], number] += 1
    wanted, found = (np.array([len(cluster) for cluster in each], dtype=np.float64) for each in (key, response))
    right = common.sum()
    sizes = wanted[:, None] + found
    muc = right - np.count_nonzero(common)
    ceafe, ceafm = _aligned(2 * common / sizes), _aligned(common)
    links = _pairs(common).sum()
    # Links between the clusters that both sides have are those of all common mentions that neither joins.
    others = _pairs(right) - _pairs(common.sum(1)).sum() - _pairs(common.sum(0)).sum() + links
    # A cluster of one has a link to itself, which only a cluster of one resolves.
    resolved = _pairs(common) + common * (sizes == 2)
    return np.array(
        [
            (muc, (wanted - 1).sum(), muc, (found - 1).sum()),
            ((common**2 / wanted[:, None]).sum(), wanted.sum(), (common**2 / found).sum(), found.sum()),
            (ceafe, len(key), ceafe, len(response)),
            (ceafm, wanted.sum(), ceafm, found.sum()),
            (_lea(resolved.sum(1), wanted), wanted.sum(), _lea(resolved.sum(0), found), found.sum()),
            (right, wanted.sum(), right, found.sum()),
            (links, _pairs(wanted).sum(), links, _pairs(found).sum()),
            (others, _between(wanted), others, _between(found)),
        ]
    )


def _divided(totals: np.ndarray) -> np.ndarray:
    """Returns recall, precision and F1: (measures, 3), each 0 where its denominator is."""
    ratios = _ratio(totals[:, ::2], totals[:, 1::2])
    return np.column_stack([ratios, _ratio(2 * ratios.prod(1), ratios.sum(1))])


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    ratios: np.ndarray = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=denominators > 0)
    return ratios


def _aligned(similarity: np.ndarray) -> float:
    """Returns the similarity of the clusters of both sides where each is aligned with one at most, as well as can be.

    Args:
        similarity: (clusters of the key, of the response) float.
    """
    from scipy.optimize import linear_sum_assignment  # takes a second to import

    return float(similarity[linear_sum_assignment(similarity, maximize=True)].sum())


def _lea(resolved: np.ndarray, sizes: np.ndarray) -> float:
    """Returns the sizes of clusters, each times the part of its links that is resolved, summed."""
    return float((sizes * resolved / np.maximum(1, _pairs(sizes))).sum())


def _pairs(sizes: np.ndarray) -> np.ndarray:
    """Returns how many pairs as many mentions have."""
    return sizes * (sizes - 1) / 2


def _between(sizes: np.ndarray) -> float:
    """Returns how many pairs of mentions are of different clusters."""
    return float(_pairs(sizes.sum()) - _pairs(sizes).sum())
