"""The loss of predicting tokens, computed for labelled positions only and never for all of them at once."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

IGNORED = -100
ROWS = 256


def masked_lm_loss(
    hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], *, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy over labelled positions.

    Logits exist for `ROWS` positions at a time, forward and backward; backward computes them again.

    Args:
        hidden: (batch, positions, width).
        labels: (batch, positions) long; `IGNORED` where nothing is to be predicted.
        head: turns (rows, width) into logits (rows, vocabulary).
        label_smoothing: probability that the target gives away to all tokens in equal parts (Szegedy et al. 2016).

    Returns:
        () float32; 0 where nothing is labelled.

    Raises:
        ValueError: there is not one label for every position.
    """
    if labels.shape != hidden.shape[:2]:
        raise ValueError(f"labels must be (batch, positions), {tuple(hidden.shape[:2])}, got {tuple(labels.shape)}")
    labels = labels.flatten()
    labelled = (labels != IGNORED).nonzero().squeeze(1)
    rows, targets = hidden.flatten(0, 1).index_select(0, labelled), labels[labelled]

    def summed_loss(rows: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(head(rows).float(), targets, reduction="sum", label_smoothing=label_smoothing)

    # The empty sum keeps a batch without labels differentiable.
    total = rows.sum().float() * 0
    for some, wanted in zip(rows.split(ROWS), targets.split(ROWS), strict=True):
        total = total + checkpoint(summed_loss, some, wanted, use_reentrant=False)
    return total / max(1, labelled.shape[0])
