"""Dropout keeps a seed: it drops the same elements forward and backward, with the right share."""

import pytest
import torch

from longformer.cpu.dropout import draw_kept, dropped, factor_of_kept, generator_of


def test_the_same_seed_drops_the_same_elements() -> None:
    hidden = torch.randn(64, 100)
    output, factors = (dropped(each, 0.3, generator_of(5)) for each in (hidden, torch.ones(64, 100)))
    torch.testing.assert_close(output, hidden * factors)
    torch.testing.assert_close(factors.unique(), torch.tensor([0, 1 / 0.7]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dropout", [0.0001, 0.1, 0.5, 0.97])
def test_draws_have_the_right_share_are_made_up_for_and_are_independent_of_each_other(dropout: float) -> None:
    draws = draw_kept(torch.empty(1001, 999), dropout, torch.Generator().manual_seed(1))
    share = (draws == 0).double().mean().item()
    count = draws.numel()
    assert abs(share - dropout) < 1e-5 + 5 * (dropout * (1 - dropout) / count) ** 0.5
    assert (
        abs(draws.double().mean().item() * factor_of_kept(dropout) - 1) < 5 * (dropout / (1 - dropout) / count) ** 0.5
    )
    # Draws that share a random number must not follow each other.
    flat = (draws == 0).double().flatten() - share
    for distance in (1, 2, 3, 4):
        correlation = (flat[:-distance] * flat[distance:]).mean() / max(share * (1 - share), 1e-12)
        assert abs(correlation.item()) < 5 / count**0.5


def test_draws_repeat_with_the_state_of_the_generator() -> None:
    first, second = (draw_kept(torch.empty(7, 13), 0.4, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
