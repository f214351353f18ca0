"""What a layer projects for attention: query, key and value apart, or packed in one tensor by one product."""

from collections.abc import Sequence

from torch import Tensor


def separate(projections: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return query, key and value, each (batch, positions, heads, head_dim), without copying anything.

    Args:
        projections: the three of them, or one packed (batch, positions, 3, heads, head_dim).
    """
    return projections[0].unbind(2) if len(projections) == 1 else tuple(projections)
