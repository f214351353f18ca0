"""Claims about positions: distances are what attention sees, however far from the start of the text."""

import math

import torch

from longformer.models.char_lm.positions import distance_sinusoids, rotary_rotations, rotated


def test_rotary_products_depend_only_on_the_distance() -> None:
    query, key = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def product(query_position: int, key_position: int) -> float:
        rotations = rotary_rotations(torch.tensor([query_position, key_position]), 16)
        return (rotated(query, rotations[:1]) * rotated(key, rotations[1:])).sum().item()

    assert math.isclose(product(9, 2), product(1007, 1000), rel_tol=1e-3)
    assert not math.isclose(product(9, 2), product(9, 3), rel_tol=1e-2)


def test_rotary_turns_neighbouring_pairs_by_the_angles_of_roformer() -> None:
    vector, position, size = torch.randn(6), 5, 6
    turned = rotated(vector.view(1, 1, 1, 6), rotary_rotations(torch.tensor([position]), size)).flatten()
    for pair in range(size // 2):
        angle = position * 10_000 ** (-2 * pair / size)
        first, second = vector[2 * pair].item(), vector[2 * pair + 1].item()
        assert math.isclose(turned[2 * pair], first * math.cos(angle) - second * math.sin(angle), abs_tol=1e-5)
        assert math.isclose(turned[2 * pair + 1], first * math.sin(angle) + second * math.cos(angle), abs_tol=1e-5)


def test_half_precision_vectors_are_turned_with_precise_angles() -> None:
    vectors = torch.randn(1, 2, 1, 64)
    rotations = rotary_rotations(torch.tensor([30_000, 30_001]), 64)
    exact = rotated(vectors, rotations)
    assert (rotated(vectors.bfloat16(), rotations).float() - exact).abs().max() < 0.05


def test_sinusoids_are_those_of_transformer_xl() -> None:
    table = distance_sinusoids(torch.tensor([0, 7]), 8)
    expected = [f(7 / 10_000 ** (2 * i / 8)) for f in (math.sin, math.cos) for i in range(4)]
    torch.testing.assert_close(table[1], torch.tensor(expected))
    torch.testing.assert_close(table[0], torch.tensor([0.0] * 4 + [1.0] * 4))
