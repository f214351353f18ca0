"""ROUGE of summaries, with confidence intervals, and the extracts that summaries are held against.

The scores are those of Google's package `rouge_score`. Published figures differ in what they count (semantics.md 5), so
both are given: with and without stemming, and beside rougeL, which takes a summary as one line, rougeLsum, which takes
it sentence by sentence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from longformer.evaluation.lengths import groups_by_length
from longformer.evaluation.words import TextUnits

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
STEMMED = "_stemmed"
"""Behind the name of a metric: words were reduced to their stems (Porter) before they were compared."""
_ENGLISH = TextUnits()


def rouge(prediction: str, references: Sequence[str], units: TextUnits = _ENGLISH) -> dict[str, float]:
    """Returns F of all METRICS, plain and STEMMED; of several references, for each metric that of the best one.

    Words, and for rougeLsum sentences, are those of `units`. Stems are English: with another tokenizer than `default`
    both figures are the same.
    """
    written, *wanted = ("\n".join(units.sentences(text)) for text in (prediction, *references))
    scores: dict[str, float] = {}
    for ending, stemmed in (("", False), (STEMMED, True)):
        found = _scorer(stemmed, units).score_multi(wanted, written)
        scores |= {metric + ending: float(found[metric].fmeasure) for metric in METRICS}
    return scores


@dataclass(frozen=True)
class _Words:
    """`TextUnits.words` under the name that the package calls."""

    units: TextUnits

    def tokenize(self, text: str) -> list[str]:
        return self.units.words(text)


@lru_cache(maxsize=2)
def _scorer(stemmed: bool, units: TextUnits) -> Any:
    # Imported here: it brings nltk, which takes seconds. Nothing is downloaded: of nltk only the stemmer is used.
    from rouge_score.rouge_scorer import RougeScorer

    own = None if units.tokenizer == "default" else _Words(units)
    return RougeScorer(METRICS, use_stemmer=stemmed, tokenizer=own)


@dataclass(frozen=True)
class Mean:
    """A mean over documents and where it would lie for other documents of the same kind."""

    mean: float
    low: float
    high: float
    """The interval that holds 95 percent of the means of resampled documents."""


def mean_with_interval(values: Sequence[float], *, resamples: int = 1_000, seed: int = 0) -> Mean:
    """Returns the mean and its bootstrap interval (percentiles 2.5 and 97.5; Efron 1979).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is nothing to take the mean of")
    array = np.array(values)
    random = np.random.default_rng(seed)
    means = [array[random.integers(len(array), size=len(array))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, (2.5, 97.5))
    return Mean(float(array.mean()), float(low), float(high))


def lead(document: str, *, words: int, units: TextUnits = _ENGLISH) -> str:
    """Returns the first sentences of a document, as many as reach `words` words: what every summary has to beat."""
    taken: list[str] = []
    for sentence in units.sentences(document):
        if sum(len(units.words(one)) for one in taken) >= words:
            break
        taken.append(sentence)
    return "\n".join(taken)


def oracle(document: str, references: Sequence[str], units: TextUnits = _ENGLISH) -> str:
    """Returns what an extract can reach at best, near enough: the sentences that a greedy search finds.

    It adds the sentence that raises rouge1 + rouge2 of the best reference most, until none does (Nallapati et al.
    2017), and returns them in the document's order.
    """
    candidates = units.sentences(document)
    words = list(map(units.words, candidates))
    _, chosen = max((_greedy(words, units.words(reference)) for reference in references), key=lambda found: found[0])
    return "\n".join(candidates[number] for number in sorted(chosen))


def _greedy(candidates: list[list[str]], reference: list[str]) -> tuple[float, list[int]]:
    """Returns the score and the numbers of the chosen sentences, all given as words."""
    shared, sizes, wanted = zip(*(_overlaps(candidates, reference, size) for size in (1, 2)), strict=True)
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < len(candidates):
        totals = np.zeros(len(candidates))
        for of_grams, size, most in zip(shared, sizes, wanted, strict=True):
            found = np.minimum(of_grams + of_grams[chosen].sum(0), most).sum(1)
            totals += 2 * found / np.maximum(size + size[chosen].sum() + most.sum(), 1)
        totals[chosen] = 0
        if totals.max() <= best:
            break
        best = float(totals.max())
        chosen.append(int(totals.argmax()))
    return best, chosen


def _overlaps(
    candidates: list[list[str]], reference: list[str], size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns how often every group of `size` words of the reference occurs in every candidate, how many groups the
    candidates have in all, and how often each occurs in the reference."""
    wanted, *found = (_groups_of_words(words, size) for words in (reference, *candidates))
    shared = np.array([[counted[group] for group in wanted] for counted in found])
    return shared, np.array([counted.total() for counted in found]), np.array(list(wanted.values()))


def _groups_of_words(words: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(size)), strict=False))


def by_length(lengths: Sequence[int], values: Sequence[float], *, first: int = 1_024) -> dict[str, tuple[int, float]]:
    """Returns count and mean of the values of documents up to `first` tokens, twice that, four times, and so on."""
    groups = groups_by_length(lengths, first=first)
    return {
        f"up to {border}": (len(members), float(np.mean([values[number] for number in members])))
        for border, members in groups.items()
    }
