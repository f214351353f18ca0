"""The loss of labels is that of PyTorch, weighted or not, and the same for every division of a batch."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from longformer.training.objectives import IGNORED, weighted_labels

SEEDS = st.integers(0, 2**32 - 1)


def case(seed: int, problem: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of six examples, some without."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 1 if problem == "regression" else 3, generator=random)
    missing = torch.rand(6, generator=random) < 0.3
    if problem == "single_label":
        return logits, torch.randint(3, (6,), generator=random).masked_fill(missing, IGNORED)
    if problem == "regression":
        return logits, torch.randn(6, generator=random).masked_fill(missing, torch.nan)
    holds = torch.randint(2, (6, 3), generator=random).float()
    return logits, holds.masked_fill(missing[:, None], torch.nan)


@given(SEEDS, st.sampled_from(["single_label", "multi_label", "regression"]), st.booleans(), st.integers(1, 5))
def test_the_loss_of_labels_is_the_same_for_every_division_of_a_batch(
    seed: int, problem: str, is_weighted: bool, division: int
) -> None:
    logits, labels = case(seed, problem)
    objective = weighted_labels([0.5, 2.0, 1.0] if is_weighted and problem != "regression" else None)

    def sums(rows: slice) -> tuple[float, int]:
        batch = {"logits": logits[rows], "labels": labels[rows]}
        count = objective.predictions(batch)
        return float(objective.loss(lambda logits: SimpleNamespace(logits=logits), batch)) * count, count

    whole, labelled = sums(slice(None))
    parts = [sums(slice(0, division)), sums(slice(division, None))]
    assert sum(part for part, _ in parts) == pytest.approx(whole, rel=1e-5, abs=1e-6)
    assert sum(count for _, count in parts) == labelled


@given(SEEDS)
def test_weighted_losses_are_those_of_pytorch(seed: int) -> None:
    weights = torch.tensor([0.5, 2.0, 1.0])
    objective = weighted_labels(weights.tolist())

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return objective.loss(lambda logits: SimpleNamespace(logits=logits), {"logits": logits, "labels": labels})

    logits, labels = case(seed, "single_label")
    labels = labels.clamp(min=0)
    # PyTorch's mean is over the weights, this one over the labels.
    expected = functional.cross_entropy(logits, labels, weight=weights, reduction="sum") / 6
    torch.testing.assert_close(loss(logits, labels), expected)
    logits, holds = case(seed, "multi_label")
    holds = holds.nan_to_num()
    expected = functional.binary_cross_entropy_with_logits(logits, holds, pos_weight=weights)
    torch.testing.assert_close(loss(logits, holds), expected)
