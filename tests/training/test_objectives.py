"""The loss of labels is that of PyTorch, weighted or not, and the same for every division of a batch."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from longformer.training.objectives import ANSWER_SPANS, IGNORED, weighted_labels

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


@given(SEEDS, st.integers(1, 3), st.integers(1, 5))
def test_the_loss_of_answers_is_that_of_any_of_their_places_for_every_division_of_a_batch(
    seed: int, places: int, division: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 6, 7, generator=random)
    mask = torch.arange(7) < torch.randint(4, 8, (6, 1), generator=random)
    starts, ends = (
        torch.randint(4, (6, places), generator=random).masked_fill(
            torch.rand(6, places, generator=random) < 0.3, IGNORED
        )
        for _ in range(2)
    )
    starts, ends = starts.where(ends != IGNORED, IGNORED), ends.where(starts != IGNORED, IGNORED)

    def sums(rows: slice) -> tuple[torch.Tensor, int]:
        batch = {"start_positions": starts[rows], "end_positions": ends[rows], "attention_mask": mask[rows].long()}

        def model(attention_mask: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(start_logits=logits[0, rows], end_logits=logits[1, rows])

        count = ANSWER_SPANS.predictions(batch)
        return ANSWER_SPANS.loss(model, batch) * count, count

    expected, counted = 0.0, 0
    for row in range(6):
        wanted = [{place for place in each[row].tolist() if place != IGNORED} for each in (starts, ends)]
        if wanted[0]:
            counted += 1
            for of_row, right in zip(logits[:, row], wanted, strict=True):
                chances = of_row[mask[row]].softmax(0)
                expected -= 0.5 * float(chances[sorted(right)].sum().log())
    logits.requires_grad_()
    whole, count = sums(slice(None))
    assert (float(whole), count) == (pytest.approx(expected, rel=1e-4, abs=1e-5), counted)
    whole.backward()
    assert logits.grad.isfinite().all()
    parts = [sums(slice(0, division)), sums(slice(division, None))]
    assert float(sum(part for part, _ in parts)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_loss_of_one_place_is_that_of_transformers() -> None:
    logits, places = torch.randn(2, 4, 9), torch.tensor([[3], [0], [8], [8]])
    batch = {"start_positions": places, "end_positions": places, "attention_mask": torch.ones(4, 9, dtype=torch.long)}
    found = ANSWER_SPANS.loss(
        lambda attention_mask: SimpleNamespace(start_logits=logits[0], end_logits=logits[1]), batch
    )
    torch.testing.assert_close(
        found, torch.stack([functional.cross_entropy(each, places[:, 0]) for each in logits]).mean()
    )
