"""Does reading more help? Scores of texts by how long they are."""

from collections.abc import Callable, Sequence

from longformer.evaluation.classification import Scores, without_classes

SHORT = 512
"""Tokens that a short model reads; what reading more gives is told beside it."""


def groups_by_length(lengths: Sequence[int], *, first: int) -> dict[int, list[int]]:
    """Returns the numbers of the texts of up to `first` tokens, twice that, four times, and so on, by this border."""
    groups: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        border = first
        while border < length:
            border *= 2
        groups.setdefault(border, []).append(number)
    return dict(sorted(groups.items()))


def scores_by_length(lengths: Sequence[int], scores: Callable[[Sequence[int]], Scores]) -> dict[str, Scores]:
    """Returns the scores of texts of up to SHORT tokens, twice that, and so on; nothing where all are of one group.

    Args:
        lengths: of the texts, in tokens.
        scores: of the texts of these numbers; those of single classes are left out.
    """
    groups = groups_by_length(lengths, first=SHORT)
    if len(groups) < 2:
        return {}
    return {
        f"up_to_{border}_tokens": {**without_classes(scores(members)), "texts": len(members)}
        for border, members in groups.items()
    }
