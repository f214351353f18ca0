"""Two ways to tell attention how far apart two positions are: rotary rotations and relative sinusoids.

Both are computed in float32 from integer positions, never stored in a checkpoint, and know no maximum length.
"""

import torch
from torch import Tensor

_BASE = 10_000.0


def rotary_rotations(positions: Tensor, head_size: int) -> Tensor:
    """Returns the rotation of every position as unit complex numbers (RoFormer, arXiv 2104.09864).

    Args:
        positions: (positions,) integers.
        head_size: even width of one attention head.

    Returns:
        (positions, 1, head_size / 2) complex64; the middle dimension broadcasts over heads.
    """
    frequencies = _frequencies(head_size, positions.device)
    angles = positions[:, None, None].float() * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def rotated(vectors: Tensor, rotations: Tensor) -> Tensor:
    """Turns neighbouring pairs of coordinates, so that dot products depend only on the difference of positions.

    Args:
        vectors: (batch, positions, heads, head_size), any floating type.
        rotations: what `rotary_rotations` returned for the same positions.

    Returns:
        Tensor like `vectors`. The turning itself happens in at least float32: bfloat16 could not tell apart the
        angles of far positions.
    """
    precise = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    # One complex product reads and writes the vectors once; separate cosines and sines would take several passes.
    turned = torch.view_as_complex(precise.unflatten(-1, (-1, 2))) * rotations
    return torch.view_as_real(turned).flatten(-2).to(vectors.dtype)


def distance_sinusoids(distances: Tensor, hidden_size: int) -> Tensor:
    """Returns Transformer-XL's sinusoids R[distance] (arXiv 1901.02860): all sines, then all cosines.

    Args:
        distances: (columns,) integers, how far back a key lies.
        hidden_size: even width of the model.

    Returns:
        (columns, hidden_size) float32.
    """
    angles = distances[:, None].float() * _frequencies(hidden_size, distances.device)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def _frequencies(size: int, device: torch.device) -> Tensor:
    return _BASE ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
