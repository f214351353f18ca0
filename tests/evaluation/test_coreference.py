"""Claims about the scores of coreference: the official ones, and those that loops over mentions and links give."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, permutations, product
from pathlib import Path

import pytest

from longformer.evaluation import classification
from longformer.evaluation.coreference import coreference_scores

Cluster = list[object]
Ratios = tuple[float, float]

# 150 random cases of 1 to 4 documents, each a pair of key and response; of a cluster every letter is a mention. The
# scores beside them are [recall, precision, f1] of the numerators and denominators that the official scorer 8.01 gives;
# of LEA those of coval, the scorer of its authors.
CASES = json.loads(Path(__file__).with_name("coreference_scores.json").read_text())

# Recall and precision as they stand in TestCases.README, of LEA in that of coval; of BLANC those of the coreference and
# of the other links, without the kind that the key has none of.
PERFECT = {name: [(1, 1)] for name in ("muc", "b3", "ceafm", "ceafe", "lea", "blanc")}
WITHOUT_REPEATED = {
    "muc": [(1 / 3, 1 / 3)], "b3": [(5 / 9, 17 / 42)], "ceafm": [(4 / 6, 4 / 7)], "ceafe": [(2.2 / 3, 2.2 / 4)],
    "lea": [(3 / 6, 2 / 7)], "blanc": [(1 / 4, 1 / 4), (5 / 11, 5 / 17)],
}  # fmt: skip
OFFICIAL: dict[str, dict[str, list[Ratios]]] = {
    "A-1": PERFECT,
    "A-2": {"lea": [(2 / 6, 1)], "b3": [(7 / 18, 1)], "muc": [(1 / 3, 1)], "ceafm": [(3 / 6, 1)],
            "ceafe": [(1.8 / 3, 1.8 / 2)], "blanc": [(1 / 4, 1), (2 / 11, 1)]},
    "A-3": {"lea": [(1, 4 / 9)], "b3": [(1, 55 / 108)], "muc": [(1, 3 / 5)], "ceafm": [(1, 6 / 9)],
            "ceafe": [((1 + 4 / 5 + 6 / 7) / 3, (1 + 4 / 5 + 6 / 7) / 4)], "blanc": [(1, 4 / 9), (1, 11 / 27)]},
    "A-4": WITHOUT_REPEATED,
    "A-5": {"lea": [(3 / 6, (1 + 4 / 6) / 8)], "b3": [(5 / 9, 5 / 16)], "muc": [(1 / 3, 1 / 4)],
            "ceafm": [(4 / 6, 4 / 8)],
            "ceafe": [((1 + 4 / 6 + 2 / 5) / 3, (1 + 4 / 6 + 2 / 5) / 4)], "blanc": [(1 / 4, 1 / 7), (5 / 11, 5 / 21)]},
    "A-6": {"lea": [(3 / 6, 2 / 8)], "b3": [(5 / 9, 17 / 48)], "muc": [(1 / 3, 1 / 4)], "ceafm": [(4 / 6, 4 / 8)],
            "ceafe": [(2.2 / 3, 2.2 / 4)], "blanc": [(1 / 4, 1 / 5), (5 / 11, 5 / 23)]},
    "A-7": WITHOUT_REPEATED,
    "A-8": WITHOUT_REPEATED,
    "A-9": WITHOUT_REPEATED,
    "A-10": {"lea": [(1 / 6, 1 / 6)], "b3": [(3 / 6, 1)], "muc": [(0, 0)], "blanc": [(0, 0), (1, 11 / 15)]},
    "A-11": {"lea": [(5 / 6, 4 / 15)], "b3": [(1, 7 / 18)], "muc": [(1, 3 / 5)], "blanc": [(1, 4 / 15), (0, 0)]},
    "A-12": {"lea": [(1 / 6, 1 / 7)], "b3": [(13 / 36, 4 / 7)], "muc": [(0, 0)], "blanc": [(0, 0), (5 / 11, 5 / 21)]},
    "A-13": {"lea": [(1 / 6, 1 / 21)], "b3": [(17 / 36, 6 / 49)], "muc": [(1 / 3, 1 / 6)],
             "blanc": [(1 / 4, 1 / 21), (0, 0)]},
    "B-1": {"lea": [(1 / 5, 2 / 5)], "blanc": [(1 / 4, 1 / 4), (2 / 6, 2 / 6)]},
    "C-1": {"lea": [(3 / 7, 4 / 7)], "blanc": [(2 / 5, 2 / 5), (10 / 16, 10 / 16)]},
    "D-1": {"lea": [(1, (5 + 7 * 11 / 21) / 12)], "b3": [(1, 16 / 21)], "muc": [(1, 9 / 10)]},
    "E-1": {"lea": [(1, (10 * 20 / 45 + 2) / 12)], "b3": [(1, 7 / 12)], "muc": [(1, 9 / 10)]},
    "F-1": {"lea": [(2 / 6, 1)], "muc": [(2 / 3, 1)]},
    "G-1": {"lea": [(1, 2 / 6)], "muc": [(1, 2 / 3)]},
    "H-1": {"lea": [(1, 1)], "muc": [(1, 1)]},
    "I-1": {"lea": [(2 / 6, 1)], "muc": [(2 / 3, 1)]},
    "J-1": {"lea": [(1 / 3, 1)], "muc": [(1 / 2, 1)]},
    "K-1": {"lea": [(3 / 21, 3 / 9)], "muc": [(3 / 6, 3 / 6)]},
    "L-1": {"lea": [((3 / 3 + 4 / 6) / 7, (2 + 3 / 3) / 7)], "muc": [(2 / 5, 2 / 4)]},
    "M-1": PERFECT,
    "M-2": {"lea": [(0, 0)], "muc": [(0, 0)], "blanc": [(0, 0)]},
    "M-3": {"lea": [(4 / 15, 5 / 6)], "blanc": [(4 / 15, 1)]},
    "M-4": {"lea": [(3 / 15, 3 / 15)], "blanc": [(3 / 15, 3 / 15)]},
    "M-5": {"lea": [(0, 0)], "muc": [(0, 0)], "blanc": [(0, 0)]},
    "M-6": {"lea": [(1 / 15, 2 / 6)], "blanc": [(1 / 15, 1 / 4)]},
    "N-1": {**PERFECT, "muc": [(0, 0)]},
    "N-2": {"blanc": [(0, 0)]},
    "N-3": {"blanc": [(11 / 15, 1)]},
    "N-4": {"muc": [(0, 0)], "blanc": [(3 / 15, 3 / 15)]},
    "N-5": {"blanc": [(0, 0)]},
    "N-6": {"blanc": [(2 / 15, 2 / 11)]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "_RESAMPLES", (1, 1))


def test_scores_are_those_of_the_official_test_cases(test_data: Path) -> None:
    folder = test_data / "coref_scorer_tests" / "test" / "DataFiles"
    if not folder.is_dir():
        pytest.skip(f"the official test cases are not in {test_data}")
    responses = {path.stem.removeprefix("TC-"): path for path in folder.glob("*.response")}
    assert responses.keys() == OFFICIAL.keys()
    for name, response in responses.items():
        key = folder / f"TC-{name[0]}.key"
        scores = coreference_scores([clusters_in(key)], [clusters_in(response)])
        for measure, kinds in OFFICIAL[name].items():
            expected = [mean(values) for values in zip(*((*ratios, f1(*ratios)) for ratios in kinds), strict=True)]
            assert parts(scores, measure) == pytest.approx(expected), (name, measure)


def test_scores_are_those_of_the_official_scorer_on_random_documents() -> None:
    for case in CASES:
        sides = zip(*case["documents"], strict=True)
        key, response = ([list(map(list, document.split())) for document in side] for side in sides)
        scores = coreference_scores(key, response)
        assert {name: parts(scores, name) for name in case["scores"]} == {
            name: pytest.approx(values, abs=1e-8) for name, values in case["scores"].items()
        }
        assert scores["conll_f1"] == pytest.approx(mean([case["scores"][name][2] for name in ("muc", "b3", "ceafe")]))


def test_scores_are_what_their_definitions_give() -> None:
    generator = random.Random(3)
    for _ in range(300):
        key, response = ([random_clusters(generator)] for _ in range(2))
        for singletons in (True, False):
            wanted, found = ([each for each in sides[0] if singletons or len(each) > 1] for sides in (key, response))
            scores = coreference_scores(key, response, singletons=singletons)
            for measure, oracle in ORACLES.items():
                expected = oracle(wanted, found), oracle(found, wanted)
                assert parts(scores, measure) == pytest.approx([*expected, f1(*expected)]), (measure, key, response)
            kinds = [
                (ratio(same, wanted_links), ratio(same, found_links))
                for wanted_links, found_links in zip(links_of(wanted), links_of(found), strict=True)
                for same in [wanted_links & found_links]
                if wanted_links
            ]
            blanc = [mean(values) for values in zip(*((*each, f1(*each)) for each in kinds), strict=True)] or [0, 0, 0]
            assert parts(scores, "blanc") == pytest.approx(blanc)


def muc(key: Sequence[Cluster], response: Sequence[Cluster]) -> float:
    """The links that the response leaves in the clusters of the key, of those that hold them together."""
    right = total = 0
    for cluster in key:
        met = {tuple(cluster_with(mention, response)) or mention for mention in cluster}
        right += len(cluster) - len(met)
        total += len(cluster) - 1
    return right / total if total else 0


def b3(key: Sequence[Cluster], response: Sequence[Cluster]) -> float:
    """The mean over the mentions of the part of their cluster that stands with them in the response."""
    return mean(
        [
            sum(other in each for other in cluster) / len(cluster) if (each := cluster_with(mention, response)) else 0
            for cluster in key
            for mention in cluster
        ]
    )


def ceafm(key: Sequence[Cluster], response: Sequence[Cluster]) -> float:
    return best_alignment(key, response, lambda a, b: len({*a} & {*b})) / max(1, sum(map(len, key)))


def ceafe(key: Sequence[Cluster], response: Sequence[Cluster]) -> float:
    return best_alignment(key, response, lambda a, b: 2 * len({*a} & {*b}) / (len(a) + len(b))) / max(1, len(key))


def best_alignment(key, response, similarity) -> float:
    fewer, more = sorted((key, response), key=len)
    return max(sum(map(similarity, fewer, chosen)) for chosen in permutations(more, len(fewer)))


def lea(key: Sequence[Cluster], response: Sequence[Cluster]) -> float:
    """The mean over the mentions of the part of the links of their cluster that are in the response."""
    links = {link for each in response for link in links_inside(each)}
    return mean([ratio(links_inside(cluster) & links, links_inside(cluster)) for cluster in key for _ in cluster])


def mention(key: Sequence[Cluster], response: Sequence[Cluster]) -> float:
    wanted, found = ({mention for cluster in side for mention in cluster} for side in (key, response))
    return ratio(wanted & found, wanted)


ORACLES = {"muc": muc, "b3": b3, "ceafm": ceafm, "ceafe": ceafe, "lea": lea, "mention": mention}


def links_inside(cluster: Cluster) -> set[frozenset[object]]:
    """The pairs of a cluster; of one mention its link to itself."""
    return set(map(frozenset, combinations(cluster, 2))) or {frozenset(cluster)}


def links_of(clusters: Sequence[Cluster]) -> tuple[set[frozenset[object]], set[frozenset[object]]]:
    """The links inside clusters and between them."""
    inside = {frozenset(pair) for cluster in clusters for pair in combinations(cluster, 2)}
    between = {frozenset(pair) for two in combinations(clusters, 2) for pair in product(*two)}
    return inside, between


def cluster_with(mention: object, clusters: Sequence[Cluster]) -> Cluster:
    return next((cluster for cluster in clusters if mention in cluster), [])


def random_clusters(generator: random.Random) -> list[Cluster]:
    """Up to six clusters of some of eight mentions."""
    clusters: dict[int, Cluster] = defaultdict(list)
    for each in generator.sample("abcdefgh", generator.randint(0, 8)):
        clusters[generator.randint(1, generator.choice([2, 6]))].append(each)
    return list(clusters.values())


def clusters_in(path: Path) -> list[Cluster]:
    """The clusters of a file of one document, in the order in which they begin; the last column tells them."""
    clusters: dict[str, Cluster] = {}
    begun: dict[str, list[int]] = defaultdict(list)
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for word, line in enumerate(lines):
        column = line.split()[-1]
        for number in re.findall(r"\((\d+)", column):
            clusters.setdefault(number, [])
            begun[number].append(word)
        for number in re.findall(r"(\d+)\)", column):
            clusters[number].append((begun[number].pop(), word))
    return list(clusters.values())


def parts(scores: classification.Scores, measure: str) -> list[float]:
    return [scores[f"{measure}_{part}"] for part in ("recall", "precision", "f1")]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0


def ratio(part: set, whole: set) -> float:
    return len(part) / len(whole) if whole else 0


def f1(recall: float, precision: float) -> float:
    return 2 * recall * precision / (recall + precision) if recall + precision else 0
